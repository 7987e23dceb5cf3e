-- A worker is heard of that has a job. Returns whether the job is still its own.
local id, claim = unpack(ARGV, 3)
if not is_open(id) or redis.call('HGET', at('job', id), 'claim') ~= claim then
  return 0
end
hold(id)
return 1
