-- Takes a job in, unless its key was used or as many wait as may. Returns what became of it, and the job of the key.
local id, capacity, of_one, owner, request, unet, name, digest = unpack(ARGV, 3)
local key = at('key', owner .. ' ' .. name)
if name ~= '' then
  local before = redis.call('HMGET', key, 'id', 'digest')
  if before[1] then
    return {before[2] == digest and 'again' or 'taken', before[1]}
  end
end
if redis.call('ZCARD', prefix .. 'waiting') >= tonumber(capacity) then
  return {'full', ''}
end
local own = 0
for _, other in ipairs(redis.call('SMEMBERS', at('owner', owner))) do
  if redis.call('ZSCORE', prefix .. 'waiting', other) then
    own = own + 1
  end
end
if own >= tonumber(of_one) then
  return {'enough', ''}
end
local came = now()
redis.call('HSET', at('job', id), 'owner', owner, 'request', request, 'unet', unet, 'came', came)
redis.call('ZADD', prefix .. 'open', came, id)
redis.call('ZADD', prefix .. 'waiting', came, id)
redis.call('SADD', at('owner', owner), id)
if name ~= '' then
  redis.call('HSET', key, 'id', id, 'digest', digest)
  redis.call('HSET', at('job', id), 'key', key)
end
return {'new', id}
