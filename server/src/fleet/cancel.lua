-- Ends a job that no worker has had yet; whoever has it sees that it is cancelled.
local id, cancelled = unpack(ARGV, 2)
if redis.call('ZSCORE', prefix .. 'waiting', id) then
  finish(id, cancelled)
elseif is_open(id) then
  redis.call('SADD', prefix .. 'cancelled', id)
end
