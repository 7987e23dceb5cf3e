-- Ends the waiting jobs whose time is over, forgets the oldest of too many ended ones, and returns name and owner of those
-- that came a while ago and that no worker was told of: their server ended in that moment.
local deadline, late, most, patience = unpack(ARGV, 2)
local now = milliseconds()
for _, id in ipairs(redis.call('ZRANGE', prefix .. 'waiting', '-inf', now - deadline, 'BYSCORE')) do
  finish(id, late)
end
for _ = 1, redis.call('LLEN', prefix .. 'ended') - most do
  local id = redis.call('LPOP', prefix .. 'ended')
  local key = redis.call('HGET', at('job', id), 'key')
  redis.call('DEL', at('job', id), at('events', id), key or at('events', id))
end
local unsent = {}
for _, id in ipairs(redis.call('ZRANGE', prefix .. 'waiting', '-inf', now - patience, 'BYSCORE')) do
  if redis.call('HEXISTS', at('job', id), 'sent') == 0 then
    table.insert(unsent, {id, redis.call('HGET', at('job', id), 'owner')})
  end
end
return unsent
