-- Gives a job to a worker, unless another has it. Returns `ours` with its claim's number and the job; `held`; `over`;
-- or `ended` with the event with which this ended it.
local id, deadline, late, cancelled, most, fatal = unpack(ARGV, 3)
if not is_open(id) then
  return {'over', {}}
end
if is_held(id) then
  return {'held', {}}
end
local job = at('job', id)
local waited = math.max(0, now() - redis.call('HGET', job, 'came'))
local function ended(event)
  finish(id, event)
  return {'ended', {event}}
end
if redis.call('SISMEMBER', prefix .. 'cancelled', id) == 1 then
  return ended(cancelled)
end
if waited > tonumber(deadline) then
  return ended(late)
end
-- How often it was begun without getting further.
if redis.call('HINCRBY', job, 'begun', 1) > tonumber(most) then
  return ended(fatal)
end
hold(id)
-- How fast the line moves, while there is one.
if redis.call('ZCARD', prefix .. 'waiting') > 0 then
  redis.call('RPUSH', prefix .. 'begun', now())
  redis.call('LTRIM', prefix .. 'begun', -16, -1)
else
  redis.call('DEL', prefix .. 'begun')
end
local claim = redis.call('HINCRBY', job, 'claim', 1)
local known = redis.call('HMGET', job, 'owner', 'unet', 'state')
return {'ours', {claim, waited, known[1], known[2], known[3] or ''}}
