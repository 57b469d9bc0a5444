-- Writes the heartbeat of a process, by this Redis's clock.
--
-- KEYS  1  sorted set: process id -> when it was seen last, in seconds
--       2  hash: process id -> "<since, in seconds> <its entry, as JSON>"
-- ARGV  1  the time, in seconds, if a test moves it; else ""
--       2  the process's id
--       3  its entry, as JSON
--       4  since when it runs, in seconds of this clock; "" if it does not know yet
--       5  for how many seconds it has run
--       6  for how many seconds a process without heartbeat is listed
--       7  how many processes are listed at most
-- Reply    since when it runs, in seconds of this clock: it sends that with its next heartbeat
--
-- Both keys hold the same ids, at most ARGV[7] of them, and expire when no process has sent a heartbeat for that long.

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1e6
end
local since = ARGV[4]
if since == '' then
  since = string.format('%.3f', now - ARGV[5])
end

redis.call('ZADD', KEYS[1], string.format('%.3f', now), ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], since .. ' ' .. ARGV[3])

local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.3f', now - ARGV[6]))
local crowd = redis.call('ZRANGE', KEYS[1], 0, -ARGV[7] - 1)
for _, list in ipairs({gone, crowd}) do
  for _, id in ipairs(list) do
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
  end
end

for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, math.ceil(ARGV[6]))
end
return since
