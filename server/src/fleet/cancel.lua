-- Ends a job that no worker has; whoever has it sees that it is cancelled. Returns whether it ended at once.
local id, cancelled = unpack(ARGV, 3)
if not is_open(id) then
  return 0
end
if is_held(id) then
  redis.call('SADD', prefix .. 'cancelled', id)
  return 0
end
finish(id, cancelled)
return 1
