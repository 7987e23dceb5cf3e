-- A worker has a job no longer, which came that far with it. Returns whether the job was its own.
local id, claim, state = unpack(ARGV, 3)
local job = at('job', id)
if not is_open(id) or redis.call('HGET', job, 'claim') ~= claim then
  return 0
end
if state ~= '' then
  redis.call('HSET', job, 'state', state, 'begun', 0)
end
-- What the worker may still say is not listened to.
redis.call('HINCRBY', job, 'claim', 1)
let_go(id)
return 1
