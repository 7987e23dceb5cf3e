-- What all scripts begin with. KEYS[1] is what every key begins with; ARGV[1] how many milliseconds an ended job is
-- kept, ARGV[2] for how many a worker has a job without being heard of.
local prefix, keep, patience = KEYS[1], ARGV[1], ARGV[2]

local function at(kind, name)
  return prefix .. kind .. ':' .. name
end

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The time in which servers run, in milliseconds. Redis' own clock can jump, and goes on while no server runs: after
-- the last tidying up, no more than `most` of it counts.
local function now()
  local clock, time = redis.call('HMGET', prefix .. 'clock', 'ran', 'time', 'most'), milliseconds()
  if not clock[1] then
    return time
  end
  return clock[1] + math.max(0, math.min(time - clock[2], tonumber(clock[3])))
end

local function is_open(id)
  return redis.call('ZSCORE', prefix .. 'open', id) ~= false
end

-- Whether a worker has the job, and was heard of.
local function is_held(id)
  local limit = redis.call('ZSCORE', prefix .. 'held', id)
  return limit and tonumber(limit) > now()
end

local function hold(id)
  redis.call('ZREM', prefix .. 'waiting', id)
  redis.call('ZADD', prefix .. 'held', now() + patience, id)
end

-- No worker has the job any more.
local function let_go(id)
  redis.call('ZREM', prefix .. 'held', id)
  redis.call('ZADD', prefix .. 'waiting', redis.call('HGET', at('job', id), 'came'), id)
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
  redis.call('ZREM', prefix .. 'held', id)
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
