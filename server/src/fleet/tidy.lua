-- Lets the clock go on by at most `most` until the next time. Jobs wait again whose workers are not heard of any more;
-- those that wait end if they were cancelled or their time is over; the oldest of too many ended ones are forgotten.
-- Returns the events with which jobs ended, and name and owner of those that are not in line: their server ended in
-- that moment, or their worker did.
local most, deadline, late, cancelled, kept, sending = unpack(ARGV, 3)
local ran = now()
redis.call('HSET', prefix .. 'clock', 'ran', ran, 'time', milliseconds(), 'most', most)
for _, id in ipairs(redis.call('ZRANGE', prefix .. 'held', '-inf', ran, 'BYSCORE')) do
  let_go(id)
  redis.call('HDEL', at('job', id), 'sent')
end
local events = {}
for _, id in ipairs(redis.call('SMEMBERS', prefix .. 'cancelled')) do
  if redis.call('ZSCORE', prefix .. 'waiting', id) then
    finish(id, cancelled)
    table.insert(events, cancelled)
  end
end
for _, id in ipairs(redis.call('ZRANGE', prefix .. 'waiting', '-inf', ran - deadline, 'BYSCORE')) do
  finish(id, late)
  table.insert(events, late)
end
for _ = 1, redis.call('LLEN', prefix .. 'ended') - kept do
  local id = redis.call('LPOP', prefix .. 'ended')
  local key = redis.call('HGET', at('job', id), 'key')
  redis.call('DEL', at('job', id), at('events', id), key or at('events', id))
end
local unsent = {}
for _, id in ipairs(redis.call('ZRANGE', prefix .. 'waiting', '-inf', ran - sending, 'BYSCORE')) do
  if redis.call('HEXISTS', at('job', id), 'sent') == 0 then
    table.insert(unsent, {id, redis.call('HGET', at('job', id), 'owner')})
  end
end
return {events, unsent}
