-- Gives a job to a worker; whoever had it before has lost it. Returns its claim's number and the job, or nothing if it is over.
local id, deadline, late, cancelled, most, fatal = unpack(ARGV, 2)
if not is_open(id) then
  return {}
end
local job = at('job', id)
local waited = milliseconds() - redis.call('HGET', job, 'came')
if redis.call('SISMEMBER', prefix .. 'cancelled', id) == 1 then
  finish(id, cancelled)
  return {}
end
if waited > tonumber(deadline) then
  finish(id, late)
  return {}
end
-- How often it was begun without getting further.
if redis.call('HINCRBY', job, 'begun', 1) > tonumber(most) then
  finish(id, fatal)
  return {}
end
redis.call('ZREM', prefix .. 'waiting', id)
-- How fast the line moves, while there is one.
if redis.call('ZCARD', prefix .. 'waiting') > 0 then
  redis.call('RPUSH', prefix .. 'begun', milliseconds())
  redis.call('LTRIM', prefix .. 'begun', -16, -1)
else
  redis.call('DEL', prefix .. 'begun')
end
local claim = redis.call('HINCRBY', job, 'claim', 1)
local held = redis.call('HMGET', job, 'owner', 'request', 'unet', 'state')
return {claim, waited, held[1], held[2], held[3], held[4] or ''}
