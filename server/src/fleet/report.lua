-- A worker tells what happened to a job, and how far it is. Returns whether the job is still its own.
local id, claim, event, is_last, state, picture = unpack(ARGV, 3)
local job = at('job', id)
if redis.call('HGET', job, 'claim') ~= claim then
  return 0
end
if not is_open(id) then
  -- Who did not hear that this was heard tells it again.
  return redis.call('HGET', job, 'end') == event and 1 or 0
end
if state ~= '' then
  redis.call('HSET', job, 'state', state, 'begun', 0)
end
if picture ~= '' then
  redis.call('HSET', job, 'picture', picture)
end
if is_last == '1' then
  finish(id, event)
  return 1
end
tell(id, event)
hold(id)
return 1
