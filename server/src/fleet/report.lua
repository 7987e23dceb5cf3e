-- A worker tells what happened to a job, and how far it is. Returns whether the job is still its own.
local id, claim, event, is_last, state, picture = unpack(ARGV, 2)
local job = at('job', id)
if not is_open(id) or redis.call('HGET', job, 'claim') ~= claim then
  return 0
end
if state ~= '' then
  redis.call('HSET', job, 'state', state, 'begun', 0)
end
if picture ~= '' then
  redis.call('HSET', job, 'picture', picture)
end
if is_last == '1' then
  finish(id, event)
elseif event ~= '' then
  tell(id, event)
end
return 1
