-- What all scripts begin with. KEYS[1] is what every key begins with; ARGV[1] how many milliseconds an ended job is kept.
local prefix, keep = KEYS[1], ARGV[1]

local function at(kind, name)
  return prefix .. kind .. ':' .. name
end

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_open(id)
  return redis.call('ZSCORE', prefix .. 'open', id) ~= false
end

-- Those who follow the job hear the event.
local function tell(id, event)
  local number = redis.call('HINCRBY', at('job', id), 'number', 1)
  redis.call('XADD', at('events', id), 'MAXLEN', 32, number .. '-1', 'event', event)
end

-- The event is the job's last.
local function finish(id, event)
  local job = at('job', id)
  tell(id, event)
  redis.call('HSET', job, 'end', event)
  redis.call('HDEL', job, 'request', 'unet', 'state')
  redis.call('ZREM', prefix .. 'open', id)
  redis.call('ZREM', prefix .. 'waiting', id)
  redis.call('SREM', prefix .. 'cancelled', id)
  redis.call('SREM', at('owner', redis.call('HGET', job, 'owner')), id)
  redis.call('RPUSH', prefix .. 'ended', id)
  redis.call('PEXPIRE', job, keep)
  redis.call('PEXPIRE', at('events', id), keep)
  local key = redis.call('HGET', job, 'key')
  if key then
    redis.call('PEXPIRE', key, keep)
  end
end
