-- One budget, one script: everything a caller has to say and to ask, in one atomic round trip.
--
-- KEYS  1 head     hash    the budget's header (fields below); it never expires
--       2 ring     string  the last max(L) completion instants, 8 bytes each, entry k at (k mod size) * 8, sorted
--       3 flight   zset    permits in flight: id -> instant at which it counts as completed, answered or not
--       4 grants   hash    permits in flight: id -> "weight granted_at"
--       5 waiting  zset    waiters: id -> the instant each was told
--       6 sleeps   hash    runs waiting: run -> "closing since until" (since = 0 once it was granted again)
-- ARGV  1 now in microseconds, or "" for Redis TIME
--       2 JSON: limits [[L, W_us], ...]; optionally
--           done  [id, ...]          their responses have arrived
--           drop  [id, ...]          they were never sent
--           pause {id, us, reason}   the request of permit id was refused with 429
--           ask   {id, weight, ttl_us, waiter, run, patience_us, knock}: a knock only asks, it holds no place
--           leave waiter             it no longer waits
--           look  true               report the state
-- Reply {1, waited_us, hit}                  granted
--       {0, wait_us, reason, slept, hit}     not granted; slept = 1: this closing is new to the run
--       {2, hit}                             nothing was asked
--       {3, ...}                             the state, see report()
--       {-1, L}                              weight is above the limit L
-- All instants are integer microseconds: exact in a Lua number below 2^53.
--
-- Invariants: units = sum of the weights in flight; ring entries never decrease; a permit counts against every window
-- from its grant until W after its completion; nothing is written before every check has passed.

local head_key, ring_key, flight_key, grants_key, waiting_key, sleeps_key = unpack(KEYS)
local request = cjson.decode(ARGV[2])
local limits = request.limits

local function integer(value) return string.format('%.0f', value) end
local function number(value) return tonumber(value or false) or 0 end

local now
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local fields = {'size', 'n', 'units', 'last', 'latest', 'paused_until', 'incident_at', 'closing', 'closing_opens',
  'granted', 'hits', 'sleeps', 'slept_us', 'slept_since', 'slept_until'}
local stored = redis.call('HMGET', head_key, 'canary', 'reason', unpack(fields))
local head = {canary = stored[1] or '', reason = stored[2] or ''}
for i, field in ipairs(fields) do head[field] = number(stored[i + 2]) end

if now < head.last then now = head.last end
head.last = now

-- ---------------------------------------------------------------- the ring

local function entry(index)
  local at = (index % head.size) * 8
  return (struct.unpack('>I8', redis.call('GETRANGE', ring_key, at, at + 7)))
end

local function append(instant, weight)
  head.latest = math.max(head.latest, instant)
  for _ = 1, weight do
    redis.call('SETRANGE', ring_key, (head.n % head.size) * 8, struct.pack('>I8', head.latest))
    head.n = head.n + 1
  end
end

-- A larger limit than any before: lay the ring out anew; what is not known counts as the oldest that is.
local function grow(size)
  local known, kept = math.min(head.n, head.size), {}
  for index = head.n - known, head.n - 1 do kept[index] = entry(index) end
  local first = math.max(0, head.n - size)
  for index = first, head.n - known - 1 do kept[index] = kept[head.n - known] end
  head.size = size
  redis.call('DEL', ring_key)
  for index = first, head.n - 1 do
    redis.call('SETRANGE', ring_key, (index % size) * 8, struct.pack('>I8', kept[index]))
  end
end

-- Parts that do not match (a key evicted, or deleted by hand): what is not known is taken as completed just now.
local function repair(size)
  local entries, permits = math.min(head.n, head.size), redis.call('ZCARD', flight_key)
  if redis.call('STRLEN', ring_key) == entries * 8 and redis.call('HLEN', grants_key) == permits
    and (permits == 0) == (head.units == 0) then return end
  head.size = math.max(head.size, size)
  redis.call('SET', ring_key, string.rep(struct.pack('>I8', now), head.size))
  redis.call('DEL', flight_key, grants_key)
  head.n, head.latest, head.units = head.size, now, 0
  if head.canary ~= '' then head.canary = 'wanted' end
end

-- How many completions are younger than W: the entries are sorted, so bisect.
local function completed_within(window)
  local low, high = head.n - math.min(head.n, head.size), head.n
  while low < high do
    local middle = math.floor((low + high) / 2)
    if entry(middle) + window > now then high = middle else low = middle + 1 end
  end
  return head.n - low
end

-- ---------------------------------------------------------------- permits in flight

local function take_out(id)
  local grant = redis.call('HGET', grants_key, id)
  if not grant then return nil end
  local weight, granted_at = string.match(grant, '(%d+) (%d+)')
  redis.call('HDEL', grants_key, id)
  redis.call('ZREM', flight_key, id)
  head.units = head.units - tonumber(weight)
  return tonumber(weight), tonumber(granted_at)
end

local function give_up_unanswered()
  local late = redis.call('ZRANGEBYSCORE', flight_key, '-inf', integer(now), 'WITHSCORES')
  for i = 1, #late, 2 do
    local weight = take_out(late[i])
    if weight then append(tonumber(late[i + 1]), weight) end
    if head.canary == late[i] then head.canary = 'wanted' end
  end
end

-- ---------------------------------------------------------------- when does it open?

-- The instant at which the `place`-th waiter in line (0: the first) could be granted `weight`, and which limit decides.
local function opening(weight, place)
  local at, why = now, 0
  for i, limit in ipairs(limits) do
    local index = head.n - (limit[1] - head.units - weight) - 1 + place
    local opens = now
    if index >= head.n then
      opens = now + limit[2]           -- a request now in flight must complete and age first
    elseif index >= 0 then
      opens = entry(index) + limit[2]
    end
    if opens > at then at, why = opens, i end
  end
  return at, why
end

-- The instants that those who sleep for a permit were told, sorted. Who waits longer than that has gone away, and takes
-- its place when it comes back: an opening held for it would pass unused if it came late.
local function in_line()
  local told = {}
  local waiters = redis.call('ZRANGEBYSCORE', waiting_key, '(' .. integer(now), '+inf', 'WITHSCORES')
  for i = 1, #waiters, 2 do
    if string.sub(waiters[i], 1, 5) ~= 'away ' then told[#told + 1] = tonumber(waiters[i + 1]) end
  end
  return told
end

-- The first opening that no waiter was told: of p + 1 openings up to an instant, p waiters at most sleep for one.
local function free_opening(weight, line)
  local place = 0
  local opens, why = opening(weight, 0)
  while line[place + 1] and line[place + 1] <= opens do
    place = place + 1
    opens, why = opening(weight, place)
  end
  return opens, why
end

-- ---------------------------------------------------------------- sleeps, counted once a closing

-- `opens` is when the closing ends for the first in line; nil: what closes it began earlier, and was counted then.
local function note_closing(opens)
  local shortest = limits[1][2]
  for _, limit in ipairs(limits) do shortest = math.min(shortest, limit[2]) end
  local long = opens and opens - now >= shortest / 10
  if opens and now >= head.closing_opens and (long or now >= head.closing_opens + shortest) then
    head.closing = head.closing + 1
    head.closing_opens = opens
    head.sleeps = head.sleeps + 1
    local runs = redis.call('HGETALL', sleeps_key)
    for i = 1, #runs, 2 do
      if string.match(runs[i + 1], ' 0 %d+$') then redis.call('HDEL', sleeps_key, runs[i]) end
    end
  end
end

-- A wait that may have begun earlier: the time for which nobody was told to wait is taken out of it.
local function waits_since(since, til)
  if since == 0 then return now end
  return since + math.max(0, now - til)
end

local function sleep_of(run)
  local stored_sleep = redis.call('HGET', sleeps_key, run) or ''
  local closing, since, til = string.match(stored_sleep, '(%d+) (%d+) (%d+)')
  return number(closing), number(since), number(til)
end

local function keep_sleep(run, closing, since, til)
  redis.call('HSET', sleeps_key, run, integer(closing) .. ' ' .. integer(since) .. ' ' .. integer(til))
end

local function begin_sleep(til, run)
  head.slept_since = waits_since(head.slept_since, head.slept_until)
  head.slept_until = math.max(head.slept_until, til)
  if run == '' then return 0 end
  local closing, since, told = sleep_of(run)
  keep_sleep(run, head.closing, waits_since(since, told), math.max(told, til))
  return closing < head.closing and 1 or 0
end

local function end_sleep(run)
  if head.slept_since > 0 then
    head.slept_us = head.slept_us + math.min(now, head.slept_until) - head.slept_since
    head.slept_since = 0
  end
  local closing, since, told = sleep_of(run)
  if since == 0 then return 0 end
  keep_sleep(run, closing, 0, told)
  return math.min(now, told) - since
end

-- ---------------------------------------------------------------- the answer

local function save()
  local pairs_ = {'canary', head.canary, 'reason', head.reason}
  for _, field in ipairs(fields) do
    pairs_[#pairs_ + 1] = field
    pairs_[#pairs_ + 1] = integer(head[field])
  end
  redis.call('HSET', head_key, unpack(pairs_))
end

local function refuse(ask, opens, reason, closing_opens)
  redis.call('ZREMRANGEBYSCORE', waiting_key, '-inf', integer(now))
  if opens - now > ask.patience_us then
    redis.call('ZADD', waiting_key, integer(opens), 'away ' .. ask.waiter)
  elseif not ask.knock then
    redis.call('ZADD', waiting_key, integer(opens), ask.waiter)
  end
  note_closing(closing_opens)
  return {0, math.max(opens - now, 1), reason, begin_sleep(opens, ask.run)}
end

local function grant(ask)
  head.units = head.units + ask.weight
  head.granted = head.granted + 1
  if head.canary == 'wanted' then head.canary = ask.id end
  redis.call('ZADD', flight_key, integer(now + ask.ttl_us), ask.id)
  redis.call('HSET', grants_key, ask.id, ask.weight .. ' ' .. integer(now))
  redis.call('ZREM', waiting_key, ask.waiter)
  return {1, end_sleep(ask.run)}
end

local function acquire(ask)
  if redis.call('HEXISTS', grants_key, ask.id) == 1 then return {1, 0} end
  redis.call('ZREM', waiting_key, ask.waiter, 'away ' .. ask.waiter)
  local line = in_line()
  if now < head.paused_until then
    return refuse(ask, head.paused_until + #line * 2000, 'paused: ' .. head.reason, head.paused_until)
  end
  if head.canary ~= '' and head.canary ~= 'wanted' then
    local sent_at = tonumber(string.match(redis.call('HGET', grants_key, head.canary), ' (%d+)'))
    local patience = math.min(math.max(math.floor((now - sent_at) / 2), 20000), 1000000)
    return refuse(ask, now + patience + #line * 2000, 'one request is out to see whether the API answers again')
  end
  local first_opens = opening(ask.weight, 0)
  if first_opens <= now then return grant(ask) end
  local opens, why = free_opening(ask.weight, line)
  opens = math.max(opens, now + 1000)
  local limit = limits[math.max(why, 1)]
  return refuse(ask, opens, string.format('window %d/%g s full', limit[1], limit[3]), first_opens)
end

local function pause(order, granted_at)
  local fresh = now >= head.paused_until and granted_at > head.incident_at
  if fresh then
    head.incident_at = now
    head.hits = head.hits + 1
  end
  if now + order.us > head.paused_until then
    head.paused_until = now + order.us
    head.reason = order.reason
  end
  if now < head.closing_opens then head.closing_opens = math.max(head.closing_opens, head.paused_until) end
  head.canary = 'wanted'
  return fresh and 1 or 0
end

local function report()
  local windows = {}
  for i, limit in ipairs(limits) do windows[i] = head.units + completed_within(limit[2]) end
  redis.call('ZREMRANGEBYSCORE', waiting_key, '-inf', integer(now))
  local opens = math.max(opening(1, 0), head.paused_until)
  local sleeping = head.slept_since > 0 and math.max(math.min(now, head.slept_until) - head.slept_since, 0) or 0
  return {3, windows, head.units, redis.call('ZCARD', waiting_key), math.max(opens - now, 0),
    math.max(head.paused_until - now, 0), head.reason, head.granted, head.hits, head.sleeps, head.slept_us, sleeping}
end

-- ---------------------------------------------------------------- the story

if request.ask then
  for _, limit in ipairs(limits) do
    if request.ask.weight > limit[1] then return {-1, limit[1]} end
  end
end

local largest = 0
for _, limit in ipairs(limits) do largest = math.max(largest, limit[1]) end
repair(largest)
if largest > head.size then grow(largest) end

give_up_unanswered()

local granted_of = {}
for _, id in ipairs(request.done or {}) do
  local weight, granted_at = take_out(id)
  if weight then
    append(now, weight)
    granted_of[id] = granted_at
    if head.canary == id then head.canary = '' end
  end
end
for _, id in ipairs(request.drop or {}) do
  if take_out(id) and head.canary == id then head.canary = 'wanted' end
end

if request.leave then redis.call('ZREM', waiting_key, request.leave) end

local hit = 0
if request.pause then hit = pause(request.pause, granted_of[request.pause.id] or now) end

local reply = {2}
if request.ask then
  reply = acquire(request.ask)
elseif request.look then
  reply = report()
end
save()
reply[#reply + 1] = hit
return reply
