-- One budget, one script: everything a caller has to say and to ask, in one atomic round trip. docs/limiter.md has the proof.
--
-- KEYS  1 state    string  the header: FIELDS as doubles, then the rare part in msgpack; it never expires
--       2 ring     string  the last max(L) completion instants, 8 bytes each, entry k at (k mod size) * 8, sorted
--       3 flight   hash    permits in flight: id -> deadline, instant of the grant, weight
--       4 waiting  zset    waiters: name -> the instant each was told; 'away ' before the name of one that does not sleep
--       5 runs     hash    runs that wait, or share the budget: id -> msgpack, see record()
--       6 notes    list    what was decided and why, the newest first: "instant text"
-- ARGV  1 now in microseconds, or "" for Redis TIME
--       2 "1" where the script was not in Redis's cache: Redis may have been restarted
--       3 the budget, as doubles: share, profile (of PROFILES), trust (0 or 1), and L, W_us, seconds, burst of each window
--       4 what the caller saw of the state, as doubles: epoch, seq, counts_us, the latest that now can be; or ""
--       5 JSON of what is rare, or "":
--           anew  {epoch, counts_us, ttl_us, profile, why, widened_us}   make lost state anew, see make()
--           paused [us, reason]                  the caller knows of a pause that has so long to go
--           sure  true                           Redis's time is right though it is later than the caller expected
--           step  [epoch, offset, us]            a reply proved that the clock was set forward by this much
--           drop  [id, ...]                      they were never sent
--           said  [[id, window, limit, remaining, named, header], ...]   what responses' headers said
--           pause {id, us, asked, status, reason}   the request of permit id was refused
--           stop  [run, 1 or 0]                  the run was stopped, or goes on
--           relearn text                         what the API taught is forgotten: profile, widening, limits it named
--           leave waiter                         it no longer waits
--           ended run                            it has ended: nothing is kept for it
--           vouch true                           this Redis was stopped in order before: nothing was lost
--           look  true                           report the state; written is only that permits have expired
--       6 what is asked, as doubles: weight, ttl_us, patience_us, knock (1: it only asks, it holds no place); or ""
--       7 the waiter; 8 its run, or ""; 9 the number of ids it asks for; 10... these ids
--       ... then pairs: the id of a permit whose response has arrived, and how long ago in microseconds
-- Reply {1, waited_us, permits, hit, info}          granted: the first so many of the ids
--       {0, wait_us, reason, slept, hit, info}      not granted; slept = 1: this closing is new to the run
--       {2, paused_us, slept_us, hit, info}         nothing was asked; slept_us: of the sleep that a stop cut short
--       {3, JSON}                                   the state, see report()
--       {4, reason, hit, info}                      the run was stopped
--       {-1, L, hit, info}                          weight is above the limit L
--       {-3, 0, info}                               now is later than expected: nothing was done; see `sure` and `step`
--       {-2, why}                                   the state is lost: nothing was done; call again with `anew`
-- info: "epoch seq offset now learned" (0; 1: auto is paced; 2: its windows are longer, too).
-- All instants are integer microseconds: exact in a Lua number below 2^53.
--
-- Invariants: units = sum of the weights in flight; ring entries never decrease; a permit counts against every window
-- from its grant until W after its completion; nothing is written before every check has passed.

local VERSION = 1
local FIELDS = 40                -- doubles at the beginning of the state, in the order of head_of()
local KEPT_ANEW = {'offset', 'paused_until', 'incident_at', 'in_a_row', 'paced', 'widened_us', 'foreign', 'foreign_at',
  'adopted', 'closing', 'closing_opens', 'granted', 'hits', 'sleeps', 'slept_us'}
local FORMAT = '>dddddddddddddddddddddddddddddddddddddddd'
local PROFILES = {[0] = 'burst', [1] = 'paced', [2] = 'auto'}
local FREE, WANTED, OUT = 0, 1, 2     -- the canary
local KEPT_US = 1500000               -- so long a window's last permits are kept for a run that had fewer
local STOP_US = 60000000              -- so long a stopped run is told; its lanes ask the database then
local FORGOTTEN_US = 3600000000       -- a run that was silent for so long makes room for others
local LATE_US = 1000000               -- a question that takes longer than that is asked again
local MOST = 1000000                  -- the largest limit there can be
local NEVER = 2 ^ 52

local state_key, ring_key, flight_key, waiting_key, runs_key, notes_key = unpack(KEYS)

local function integer(value) return string.format('%.0f', value) end
local function instant_bytes(value) return struct.pack('>I8', value) end

-- ---------------------------------------------------------------- the request

local function doubles(text)
  if #text == 32 then return struct.unpack('>dddd', text) end
  return struct.unpack('>' .. string.rep('d', #text / 8), text)
end

local request = ARGV[5] ~= '' and cjson.decode(ARGV[5]) or {}
local configured = {doubles(ARGV[3])}
local share, profile, trust = configured[1], PROFILES[configured[2]], configured[3] == 1
local seen = ARGV[4] ~= '' and {doubles(ARGV[4])} or nil
local ask
local first_done = 10
if ARGV[6] ~= '' then
  local weight, ttl_us, patience_us, knock = doubles(ARGV[6])
  ask = {weight = weight, ttl_us = ttl_us, patience_us = patience_us, knock = knock == 1, waiter = ARGV[7], run = ARGV[8],
    ids = {}}
  first_done = 10 + tonumber(ARGV[9])
  for i = 10, first_done - 1 do ask.ids[i - 9] = ARGV[i] end
end

-- ---------------------------------------------------------------- the header

local function head_of(version, epoch, seq, size, n, base, units, permits, next_deadline, longest_ttl, last, latest,
  offset, made_at, covers, paused_until, incident_at, in_a_row, canary, paced, paced_at, widened_us, foreign,
  foreign_at, adopted, stops, closing, closing_opens, granted, hits, sleeps, slept_us, slept_since, slept_until,
  asleep, line_until, waiting_until, last_run, shared_until, last_save)
  return {
    version = version, epoch = epoch, seq = seq, size = size, n = n, base = base, units = units, permits = permits,
    next_deadline = next_deadline, longest_ttl = longest_ttl, last = last, latest = latest, offset = offset,
    made_at = made_at, covers = covers, paused_until = paused_until, incident_at = incident_at, in_a_row = in_a_row,
    canary = canary, paced = paced, paced_at = paced_at, widened_us = widened_us, foreign = foreign,
    foreign_at = foreign_at, adopted = adopted, stops = stops, closing = closing, closing_opens = closing_opens,
    granted = granted, hits = hits, sleeps = sleeps, slept_us = slept_us, slept_since = slept_since,
    slept_until = slept_until, asleep = asleep, line_until = line_until, waiting_until = waiting_until,
    last_run = last_run, shared_until = shared_until, last_save = last_save,
  }
end

local stored = redis.pcall('GET', state_key)  -- an error where the key is not ours: it cannot be read
local head, rare_, rare_moved
if type(stored) == 'string' and #stored > FIELDS * 8 then
  head = head_of(struct.unpack(FORMAT, stored))
  if head.version ~= VERSION then head = nil end
end

local moved_at = head and head.last - head.offset     -- when the state moved last, by the clock of Redis

-- What is seldom looked at: canary_id, hit_id, reason, run_id, made, paced_why, adopted, tats, stopped, ignored.
local function rare()
  rare_ = rare_ or cmsgpack.unpack(string.sub(stored, FIELDS * 8 + 1))
  return rare_
end

local function rare_to_change()
  rare_moved = true
  return rare()
end

local function save()
  head.seq = head.seq + 1
  local tail = rare_moved and cmsgpack.pack(rare_) or string.sub(stored, FIELDS * 8 + 1)
  local numbers = struct.pack(FORMAT,
    head.version, head.epoch, head.seq, head.size, head.n, head.base, head.units, head.permits, head.next_deadline,
    head.longest_ttl, head.last, head.latest, head.offset, head.made_at, head.covers, head.paused_until,
    head.incident_at, head.in_a_row, head.canary, head.paced, head.paced_at, head.widened_us, head.foreign,
    head.foreign_at, head.adopted, head.stops, head.closing, head.closing_opens, head.granted, head.hits,
    head.sleeps, head.slept_us, head.slept_since, head.slept_until, head.asleep, head.line_until,
    head.waiting_until, head.last_run, head.shared_until, head.last_save)
  redis.call('SET', state_key, numbers .. tail)
end

local now
local function note(text)
  redis.pcall('LPUSH', notes_key, integer(now) .. ' ' .. text)  -- nothing depends on it
  redis.pcall('LTRIM', notes_key, 0, 19)
end

-- ---------------------------------------------------------------- time

local clock
if ARGV[1] ~= '' then
  clock = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  clock = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- A clock set back resumes from the last instant; one set forward is taken back by who can prove it.
now = clock + (head and head.offset or 0)
local step = request.step
local stored_offset = head and head.offset
if head and now < head.last then
  head.offset = head.offset + head.last - now
  now = head.last
end
local stepped = head and step and step[1] == head.epoch and step[2] == stored_offset
if stepped then
  head.offset = head.offset - step[3]
  now = now - step[3]
end

-- ---------------------------------------------------------------- the limits in force

local windows, largest = {}, 0
local function key_of(seconds) return string.format('%g', seconds) end
for at = 4, #ARGV[3] / 8, 4 do
  local requests, us, seconds, burst = configured[at], configured[at + 1], configured[at + 2], configured[at + 3]
  local full = head and head.adopted > 0 and rare().adopted[key_of(seconds)] or requests
  if not trust then full = math.min(full, requests) end
  windows[#windows + 1] = {
    limit = share == 1 and full or math.max(1, math.floor(full * share + 1e-6)),
    full = full,
    us = us + (head and head.widened_us or 0),
    seconds = seconds,
    burst = burst,
  }
  largest = math.max(largest, requests, full)
end

local function title(window) return string.format('window %d/%g s', window.full, window.seconds) end

-- ---------------------------------------------------------------- the ring

local function entry(index)
  local at = (index % head.size) * 8
  return (struct.unpack('>I8', redis.call('GETRANGE', ring_key, at, at + 7)))
end

local function append(instant, weight)
  head.latest = math.max(head.latest, instant)
  local bytes, left = instant_bytes(head.latest), weight
  while left > 0 do
    local at = head.n % head.size
    local fits = math.min(left, head.size - at)
    redis.call('SETRANGE', ring_key, at * 8, string.rep(bytes, fits))
    head.n = head.n + fits
    left = left - fits
  end
end

-- A larger limit than any before: what was forgotten counts as the oldest that is known. There were n - base in all.
local function grow(size)
  local bytes, first, more = redis.call('GET', ring_key), (head.n % head.size) * 8, size - head.size
  local ordered = string.sub(bytes, first + 1) .. string.sub(bytes, 1, first)
  local forgotten = math.min(math.max(head.n - head.base - head.size, 0), more)
  ordered = string.rep(string.sub(ordered, 1, 8), forgotten) .. ordered
  redis.call('SET', ring_key, string.rep(instant_bytes(0), more - forgotten) .. ordered)
  head.base = head.base + size - head.n
  head.size, head.n = size, size
end

-- How many completions are younger than `instant`: the entries are sorted, so bisect.
local function completed_after(instant)
  local low, high = head.n - head.size, head.n
  while low < high do
    local middle = math.floor((low + high) / 2)
    if entry(middle) > instant then high = middle else low = middle + 1 end
  end
  return head.n - low
end

-- ---------------------------------------------------------------- the pace, beside the ring, where the profile says so

-- So few may be in flight, and of each window: one unit every `interval`, after a burst, so that
-- burst + flight + W / interval <= L (docs/limiter.md, Profiles). With one in flight the interval runs from its end.
-- Where requests weigh more than one, each is taken for one of the heaviest there was, and L for so many of these.
local pace_
local function pace()
  if pace_ then return pace_ end
  pace_ = {flight = NEVER, slowest = 0}
  local heaviest = rare().heaviest or 1
  local function of_heaviest(window)
    local most = window.burst > 0 and window.burst or window.limit
    return math.max(1, math.floor(window.limit / heaviest)), math.floor(most / heaviest)
  end
  for _, window in ipairs(windows) do
    local limit, most = of_heaviest(window)
    local flight = (limit < 10 or most < 4) and 1 or math.min(math.floor(limit / 10), math.floor(most / 2))
    pace_.flight = math.min(pace_.flight, flight)
  end
  for i, window in ipairs(windows) do
    local limit, most = of_heaviest(window)
    local flight, burst, rate = pace_.flight, 1, limit - 1
    if limit == 1 then rate = 0.5 end
    if flight > 1 then
      burst = math.min(math.max(2, math.floor(limit / 50)), most - flight)
      rate = limit - burst - flight
    end
    pace_[i] = {interval = window.us / rate, burst = burst}
    pace_.slowest = math.max(pace_.slowest, pace_[i].interval)
  end
  return pace_
end

local function is_paced()
  return profile == 'paced' or (profile == 'auto' and head.paced == 1)
end

local function charge(instant, requests)
  local tats = rare_to_change().tats
  for i, window in ipairs(windows) do
    local key = key_of(window.seconds)
    tats[key] = math.floor(math.max(tats[key] or 0, instant) + requests * pace()[i].interval) + 1
  end
end

-- As if everything known had been paced: what is in flight counts as sent now. Blocks of entries count as their last.
local function begin_pace()
  rare_to_change().tats = {}
  head.paced_at = now
  local bytes, block = redis.call('GET', ring_key), math.ceil(head.size / 4096)
  local first = head.n - head.size
  local index = 0
  while index < head.size do
    local count = math.min(block, head.size - index)
    local at = ((first + index + count - 1) % head.size) * 8
    local instant = struct.unpack('>I8', bytes, at + 1)
    if instant > 0 then charge(instant, count) end
    index = index + count
  end
  if head.units > 0 then charge(now, head.units) end
  local tats = rare().tats            -- no server looks back for more than two windows
  for _, window in ipairs(windows) do
    local key = key_of(window.seconds)
    tats[key] = math.min(tats[key] or 0, math.max(now, head.latest) + 2 * window.us)
  end
end

-- The instant at which the pace allows a request to the `place`-th in line (0: the first), and whether only the end of
-- one in flight can tell.
local function paced_opening(_, place)
  local at, tats = now, rare().tats
  for i, window in ipairs(windows) do
    local its = pace()[i]
    -- every charge was rounded up by a microsecond at most
    at = math.max(at, (tats[key_of(window.seconds)] or 0) - (its.burst - 1) * its.interval - its.burst)
  end
  local unsure = head.permits >= pace().flight
  if unsure then at = math.max(at, now + math.min(math.max(pace().slowest, 20000), 1000000)) end
  return math.ceil(at + place * pace().slowest), unsure
end

-- ---------------------------------------------------------------- permits in flight

local function unpack_grant(bytes)
  local deadline, granted_at, weight = struct.unpack('>I8I8I4', bytes)
  return deadline, granted_at, weight
end

local function take_out(id)
  local bytes = redis.call('HGET', flight_key, id)
  if not bytes then return nil end
  redis.call('HDEL', flight_key, id)
  local _, granted_at, weight = unpack_grant(bytes)
  head.units = head.units - weight
  head.permits = head.permits - 1
  return weight, granted_at
end

-- A permit completed at `instant`, known to be no earlier than its request was counted. Where only one may be in
-- flight the pace runs from its end; what was granted before the pace began is charged again.
local function complete(instant, weight, granted_at)
  append(instant, weight)
  if head.paced_at == 0 then return end
  if granted_at < head.paced_at then charge(instant, weight) end
  if pace().flight > 1 then return end
  local tats = rare_to_change().tats
  for i, window in ipairs(windows) do
    local key = key_of(window.seconds)
    tats[key] = math.max(tats[key] or 0, math.floor(instant + pace()[i].interval) + 1)
  end
end

local function is_canary(id) return head.canary == OUT and rare().canary_id == id end

local function give_up_unanswered()
  if head.permits == 0 or now < head.next_deadline then return false end
  local late, earliest = {}, NEVER
  local flight = redis.call('HGETALL', flight_key)
  for i = 1, #flight, 2 do
    local deadline = unpack_grant(flight[i + 1])
    if deadline <= now then late[#late + 1] = {deadline, flight[i]} else earliest = math.min(earliest, deadline) end
  end
  table.sort(late, function(a, b) return a[1] < b[1] end)
  for _, permit in ipairs(late) do
    local weight, granted_at = take_out(permit[2])
    complete(permit[1], weight, granted_at)
    if is_canary(permit[2]) then head.canary = WANTED end
  end
  head.next_deadline = earliest
  return true
end

-- ---------------------------------------------------------------- lost state

local server_

-- Which Redis this is: asked only where there is a reason to doubt.
local function server()
  if server_ then return server_ end
  server_ = {run_id = ''}
  local info = redis.pcall('INFO', 'server')
  if type(info) ~= 'string' then return server_ end
  server_.run_id = string.match(info, 'run_id:(%x+)') or ''
  return server_
end

-- At its start a Redis takes itself for saved; and it has forgotten the script. A start in the very second of the save
-- before it shows in a state that did not move after that second: then it may have stopped in it.
local last_save = redis.pcall('LASTSAVE')
if type(last_save) ~= 'number' then last_save = 0 end
local moved_since = ARGV[1] ~= '' or (moved_at and moved_at >= (last_save + 1) * 1000000)

local function what_is_lost()
  if not head then return stored and 'its state cannot be read' or 'its state is gone' end
  if redis.pcall('STRLEN', ring_key) ~= head.size * 8 or redis.pcall('HLEN', flight_key) ~= head.permits then
    return 'a part of its state is gone'
  end
  if seen and seen[1] == head.epoch and seen[2] > head.seq then return 'Redis went back to an older state' end
  if seen and seen[1] ~= head.epoch and now + seen[3] > head.covers then return 'its state was made anew by another' end
  if request.vouch then rare_to_change().run_id = server().run_id end
  if (ARGV[2] == '1' or last_save ~= head.last_save or not moved_since) and rare().run_id ~= server().run_id then
    return 'Redis was started again'
  end
end

-- The windows are taken as full until W after `covers`, the last instant at which a request that is not known any more
-- can be counted. Only where nobody ever used the budget, as far as the caller knows, it opens empty.
local function make(why)
  local anew, old, old_rare = request.anew, head, head and rare() or {}
  local ttl = math.max(anew.ttl_us, old and old.longest_ttl or 0)
  local used = stored or redis.call('EXISTS', ring_key, flight_key) > 0
  local covers = anew.counts_us and now + anew.counts_us or (used and now + ttl) or 0
  if old and old.covers == 0 then covers = math.max(covers, old.made_at + ttl) end
  -- What the old state knows of is not forgotten: what was completed, and in flight until its deadline.
  if old then covers = math.max(covers, old.latest, old.permits > 0 and old.last + old.longest_ttl or 0) end
  covers = math.max(covers, 0)

  head = head_of(struct.unpack(FORMAT, string.rep('\0', FIELDS * 8)))
  for _, field in ipairs(KEPT_ANEW) do head[field] = old and old[field] or 0 end
  head.version, head.epoch, head.made_at, head.covers = VERSION, anew.epoch, now, covers
  head.seq = math.max(old and old.seq or 0, seen and seen[2] or 0)
  head.size = math.max(largest, old and old.size or 0)
  head.n, head.last, head.latest, head.longest_ttl = head.size, now, covers, ttl
  head.base = covers > 0 and -NEVER or head.size
  head.last_save = last_save
  if old and old.canary ~= FREE then head.canary = WANTED end
  if anew.profile == 'paced' and (head.paced == 0 or head.widened_us < anew.widened_us) then
    for _, window in ipairs(windows) do window.us = window.us + anew.widened_us - head.widened_us end  -- for this call
    head.paced, head.widened_us, old_rare.paced_why = 1, anew.widened_us, anew.why
  end
  rare_ = {
    made = covers > 0 and why or '', run_id = server().run_id,
    reason = old_rare.reason or '', paced_why = old_rare.paced_why or anew.why or '', adopted = old_rare.adopted or {},
    canary_id = '', hit_id = old_rare.hit_id or '', stopped = {},
    heaviest = old_rare.heaviest,
  }
  rare_moved, stepped = true, false
  redis.call('SET', ring_key, string.rep(instant_bytes(covers), head.size))
  redis.call('DEL', flight_key, waiting_key, runs_key)
  if covers > 0 then note(why .. ': its windows are taken as full') end
  if old and old.paced_at > 0 then begin_pace() end
end

-- ---------------------------------------------------------------- when does it open?

-- The instant at which the `place`-th waiter in line (0: the first) could be granted `weight`, and which window decides.
local function opening(weight, place)
  local at, why = now, 0
  for i, window in ipairs(windows) do
    local index = head.n - (window.limit - head.units - weight) - 1 + place
    local opens = now
    if index >= head.n then
      opens = math.max(now, head.latest) + window.us   -- a request now in flight must complete and age first
    elseif index >= head.n - head.size then
      opens = entry(index) + window.us
    end
    if opens > at then at, why = opens, i end
  end
  return at, why
end

-- The instants that those who sleep for a permit were told, sorted. Who waits longer than that has gone away, and takes
-- its place when it comes back: an opening held for it would pass unused if it came late.
local function in_line()
  local told = {}
  if head.line_until <= now then return told end
  local waiters = redis.call('ZRANGEBYSCORE', waiting_key, '(' .. integer(now), '+inf', 'WITHSCORES')
  for i = 1, #waiters, 2 do
    if string.sub(waiters[i], 1, 5) ~= 'away ' then told[#told + 1] = tonumber(waiters[i + 1]) end
  end
  return told
end

-- The first opening that no waiter was told: of p + 1 openings up to an instant, p waiters at most sleep for one.
local function free_opening(weight, line, opens_at)
  local place = 0
  local opens, why = opens_at(weight, 0)
  while line[place + 1] and line[place + 1] <= opens do
    place = place + 1
    opens, why = opens_at(weight, place)
  end
  return opens, why
end

-- ---------------------------------------------------------------- runs: their sleeps, and who had less

-- closing: of its last sleep; since, told: of the sleep that goes on (since = 0: none); by, waited: the ask that ended
-- one; used: permits it had since `used_in`, a closing; seen: when it asked last.
local function record(run)
  local bytes = redis.call('HGET', runs_key, run)
  return bytes and cmsgpack.unpack(bytes)
    or {closing = 0, since = 0, told = 0, by = '', waited = 0, used = 0, used_in = 0, seen = 0}
end

local function keep(run, its) redis.call('HSET', runs_key, run, cmsgpack.pack(its)) end

local function used_by(its) return its.used_in == head.closing and its.used or 0 end

local function is_shared(run)
  if run ~= '' and tonumber(run) ~= head.last_run then
    if head.last_run > 0 then head.shared_until = now + KEPT_US end
    head.last_run = tonumber(run)
  end
  return run ~= '' and head.shared_until > now
end

-- A run that asked lately and had less than this one, if the window's last permits should go to it and its like.
local function kept_for(ask)
  local mine, rival, rivals, all = used_by(record(ask.run)), nil, 0, redis.call('HGETALL', runs_key)
  for i = 1, #all, 2 do
    local its = cmsgpack.unpack(all[i + 1])
    if all[i] ~= ask.run and its.seen > now - KEPT_US and used_by(its) < mine then
      rival, rivals = all[i], rivals + 1
    end
  end
  return rivals > 0 and opening(ask.weight + rivals, 0) > now and rival or nil
end

local function was_seen(run, used)
  local its = record(run)
  its.used, its.used_in, its.seen = used_by(its) + used, head.closing, now
  keep(run, its)
end

local function forget_run(run)
  if record(run).since > 0 then head.asleep = head.asleep - 1 end
  redis.call('HDEL', runs_key, run)
end

-- Runs that will hardly come back.
local function forget_runs()
  if redis.call('HLEN', runs_key) <= 64 then return end
  local all = redis.call('HGETALL', runs_key)
  for i = 1, #all, 2 do
    local its = cmsgpack.unpack(all[i + 1])
    if math.max(its.told, its.seen) < now - FORGOTTEN_US then forget_run(all[i]) end
  end
end

-- `opens` is when the closing ends for the first in line; nil: what closes it began earlier, and was counted then.
local function note_closing(opens)
  local shortest = NEVER
  for _, window in ipairs(windows) do shortest = math.min(shortest, window.us) end
  local long = opens and opens - now >= shortest / 10
  if opens and now >= head.closing_opens and (long or now >= head.closing_opens + shortest) then
    head.closing = head.closing + 1
    head.closing_opens = opens
    head.sleeps = head.sleeps + 1
    forget_runs()
  end
end

-- A wait that may have begun earlier: the time for which nobody was told to wait is taken out of it.
local function waits_since(since, til)
  if since == 0 then return now end
  return since + math.max(0, now - til)
end

local function begin_sleep(til, ask)
  head.slept_since = waits_since(head.slept_since, head.slept_until)
  head.slept_until = math.max(head.slept_until, til)
  if ask.run == '' then return 0 end
  local its = record(ask.run)
  if its.since == 0 then head.asleep = head.asleep + 1 end
  its.since, its.told = waits_since(its.since, its.told), math.max(its.told, til)
  its.seen = now
  if its.closing < head.closing then its.closing, its.by = head.closing, ask.ids[1] end
  keep(ask.run, its)
  return its.by == ask.ids[1] and 1 or 0
end

local function end_sleep(ask)
  if head.slept_since > 0 then
    head.slept_us = head.slept_us + math.min(now, head.slept_until) - head.slept_since
    head.slept_since = 0
  end
  if head.asleep == 0 or ask.run == '' then return 0 end
  local its = record(ask.run)
  if its.since == 0 then return 0 end
  its.waited, its.by, its.since = math.min(now, its.told) - its.since, ask.ids[1], 0
  head.asleep = head.asleep - 1
  keep(ask.run, its)
  return its.waited
end

-- A stopped run waits for nobody: its sleep is over, and who stops it is told how long it was.
local function cut_sleep(run)
  local its = record(run)
  if its.since == 0 then return 0 end
  local slept = math.max(math.min(now, its.told) - its.since, 0)
  its.since, head.asleep = 0, head.asleep - 1
  keep(run, its)
  if head.asleep == 0 and head.slept_since > 0 then
    head.slept_us = head.slept_us + math.max(math.min(now, head.slept_until) - head.slept_since, 0)
    head.slept_since = 0
  end
  return slept
end

-- ---------------------------------------------------------------- the answer

local function refuse(ask, opens, reason, closing_opens)
  redis.call('ZREMRANGEBYSCORE', waiting_key, '-inf', integer(now))
  opens = math.max(opens, now + 1)
  head.waiting_until = math.max(head.waiting_until, opens)
  if opens - now > ask.patience_us then
    redis.call('ZADD', waiting_key, integer(opens), 'away ' .. ask.waiter)
  elseif not ask.knock then
    redis.call('ZADD', waiting_key, integer(opens), ask.waiter)
    head.line_until = math.max(head.line_until, opens)
  end
  note_closing(closing_opens)
  return {0, opens - now, reason, begin_sleep(opens, ask)}
end

-- Far from every limit a caller gets all it asks for at once: a quarter of each window stays free.
local function how_many(ask, paced)
  if #ask.ids == 1 or paced or head.canary ~= FREE then return 1 end
  for _, window in ipairs(windows) do
    local index = head.n - (window.limit - head.units - #ask.ids * ask.weight - math.ceil(window.limit / 4)) - 1
    if index >= head.n or entry(index) + window.us > now then return 1 end
  end
  return #ask.ids
end

local function grant(ask, paced, shared)
  local count = how_many(ask, paced)
  local bytes, fields = struct.pack('>I8I8I4', now + ask.ttl_us, now, ask.weight), {}
  for i = 1, count do
    fields[2 * i - 1], fields[2 * i] = ask.ids[i], bytes
  end
  redis.call('HSET', flight_key, unpack(fields))
  head.next_deadline = math.min(head.permits > 0 and head.next_deadline or NEVER, now + ask.ttl_us)
  head.longest_ttl = math.max(head.longest_ttl, ask.ttl_us)
  head.units = head.units + count * ask.weight
  head.permits = head.permits + count
  head.granted = head.granted + count
  if head.canary == WANTED then
    head.canary = OUT
    rare_to_change().canary_id = ask.ids[1]
  end
  if head.paced_at > 0 then charge(now, count) end
  if shared then was_seen(ask.run, count * ask.weight) end
  return {1, end_sleep(ask), count}
end

-- The reply to this very question was lost, and it is asked again.
local function granted_before(ask)
  local count = 0
  for _, id in ipairs(ask.ids) do count = count + redis.call('HEXISTS', flight_key, id) end
  local its = record(ask.run)
  return {1, its.by == ask.ids[1] and its.waited or 0, count}
end

local function is_stopped(run)
  local til = head.stops > 0 and run ~= '' and rare().stopped[run]
  return til and now < til
end

local function full_reason(window)
  if head.covers + window.us > now then return title(window) .. ' taken as full: ' .. rare().made end
  return title(window) .. ' full'
end

local function paced_reason()
  return profile == 'paced' and 'paced' or 'paced: ' .. rare().paced_why
end

local function acquire(ask)
  for _, window in ipairs(windows) do
    local most = is_paced() and window.burst > 0 and math.min(window.burst, window.limit) or window.limit
    if ask.weight > most then return {-1, most} end
  end
  if ask.weight > 1 and ask.weight > (rare().heaviest or 1) then
    rare_to_change().heaviest, pace_ = ask.weight, nil
    if head.paced_at > 0 then begin_pace() end
  end
  for _, id in ipairs(ask.ids) do
    if redis.call('HEXISTS', flight_key, id) == 1 then return granted_before(ask) end
  end
  if is_stopped(ask.run) then return {4, 'run ' .. ask.run .. ' was stopped'} end
  if head.waiting_until > now then redis.call('ZREM', waiting_key, ask.waiter, 'away ' .. ask.waiter) end
  local line, shared = in_line(), is_shared(ask.run)
  if now < head.paused_until then
    return refuse(ask, head.paused_until + #line * 2000, 'paused: ' .. rare().reason, head.paused_until)
  end
  if head.canary == OUT then
    local bytes = redis.call('HGET', flight_key, rare().canary_id)
    local sent_at = bytes and select(2, unpack_grant(bytes)) or now
    local patience = math.min(math.max(math.floor((now - sent_at) / 2), 20000), 1000000)
    return refuse(ask, now + patience + #line * 2000, 'one request is out to see whether the API answers again')
  end
  local paced, first_opens = is_paced(), opening(ask.weight, 0)
  if paced and head.paced_at == 0 then begin_pace() end
  if first_opens <= now and paced then
    if paced_opening(ask.weight, 0) > now then
      return refuse(ask, (free_opening(ask.weight, line, paced_opening)), paced_reason())
    end
  end
  if first_opens <= now then
    local rival = shared and kept_for(ask)
    if not rival then return grant(ask, paced, shared) end
    was_seen(ask.run, 0)
    return refuse(ask, now + 100000 + #line * 2000, 'the last of the window is kept for run ' .. rival)
  end
  local opens, why = free_opening(ask.weight, line, opening)
  opens = math.max(opens, now + 1000)
  return refuse(ask, opens, full_reason(windows[math.max(why, 1)]), first_opens)
end

-- ---------------------------------------------------------------- what the API says

-- Less left than we know of: somebody else spends this quota. With a share, only what goes beyond theirs is debited.
local function debit(window, limit, remaining, granted_at, header)
  local since, not_ours = granted_at - window.us, window.full - window.limit
  local completed = limit - remaining - not_ours - head.units    -- so many of ours would explain what is spent
  if completed <= 0 or (completed <= head.size and entry(head.n - completed) > since) then return false end
  local foreign = math.min(completed - completed_after(since), window.full)
  if foreign <= 0 then return false end
  append(now, foreign)
  if now - head.foreign_at > 10000000 then
    note(string.format('%d of %s spent by others, says %s', foreign, title(window), header))
  end
  head.foreign, head.foreign_at = head.foreign + foreign, now
  return true
end

local function adopt(window, limit, header)
  note(string.format('%s is %d now, says %s', title(window), limit, header))
  rare_to_change().adopted[key_of(window.seconds)] = limit
  head.adopted = 1
  window.full, window.limit = limit, math.max(1, math.floor(limit * share + 1e-6))
  if limit > head.size then grow(limit) end
  pace_ = nil
end

-- It is noted once; ten of them, for some APIs say another number each time.
local function ignore(what)
  local known = rare().ignored or {}
  for _, before in ipairs(known) do
    if before == what then return end
  end
  if #known == 10 then return end
  known[#known + 1] = what
  rare_to_change().ignored = known
  note(what)
end

-- Returns whether it explains a refusal.
local function hear(said, granted_at)
  local _, index, limit, remaining, named, header = unpack(said)
  local window, explains, found = windows[index], false, 0
  if named == 0 then
    for _, other in ipairs(windows) do
      if other.full == limit then window, found = other, found + 1 end
    end
    if found ~= 1 then window = nil end
  end
  if not window then
    ignore(string.format('%s says %d: %s, ignored', header, limit, found > 1 and 'of either window' or 'no window of ours'))
    return false
  end
  if named == 1 and limit >= 1 and limit <= MOST and (limit < window.full or (limit > window.full and trust)) then
    explains = limit < window.full
    adopt(window, limit, header)
  end
  if remaining >= 0 and limit == window.full then
    explains = debit(window, limit, remaining, granted_at, header) or explains
  end
  return explains
end

-- A refusal that nothing explains: an API that refuses bursts is met by a steady rate, one whose clock is coarse by
-- longer windows. For good.
local function mistrust()
  local why = 'the API refused a request though every window had room'
  if head.paced == 0 then
    head.paced = 1
    rare_to_change().paced_why = why
    begin_pace()
    note(why .. ': paced from now on')
  elseif head.widened_us == 0 then
    head.widened_us, pace_ = 1000000, nil
    for _, window in ipairs(windows) do window.us = window.us + 1000000 end
    note(why .. ' again: windows are a second longer from now on')
  end
end

local function pause(order, granted_at, explained)
  local first = now >= head.paused_until and (granted_at or now) > head.incident_at and rare().hit_id ~= order.id
  local shortest, longest = NEVER, 0
  for _, window in ipairs(windows) do
    shortest, longest = math.min(shortest, window.us), math.max(longest, window.us)
  end
  if first then
    head.incident_at = now
    head.hits = head.hits + 1
    head.in_a_row = head.in_a_row + 1
    rare_to_change().hit_id = order.id
    note(order.reason)
    -- A wait longer than every window speaks of a limit that is none of ours.
    local of_ours = order.status == 429 and not (order.asked and order.us > longest + 2000000)
    if profile == 'auto' and of_ours and not explained and not order.was_canary then mistrust() end
  end
  local us = order.us
  if not order.asked then us = math.min(shortest * 2 ^ math.min(math.max(head.in_a_row - 1, 0), 20), 10 * longest, order.longest_us) end
  if now + us > head.paused_until then
    head.paused_until = math.floor(now + us)
    rare_to_change().reason = order.reason
  end
  if now < head.closing_opens then head.closing_opens = math.max(head.closing_opens, head.paused_until) end
  head.canary = WANTED
  return rare().hit_id == order.id and 1 or 0
end

-- ---------------------------------------------------------------- what people see

local function report()
  local shown = {}
  for i, window in ipairs(windows) do
    shown[i] = {window.full, window.limit, head.units + completed_after(now - window.us)}
  end
  local opens, unsure = opening(1, 0), false
  if is_paced() and head.paced_at > 0 then
    local paced_opens, estimate = paced_opening(1, 0)
    opens, unsure = math.max(opens, paced_opens), estimate
  end
  opens = math.max(opens, head.paused_until)
  local notes = {}
  for i, text in ipairs(redis.pcall('LRANGE', notes_key, 0, -1)) do
    local at, said = string.match(text, '^(%d+) (.*)$')
    notes[i] = {math.max(now - tonumber(at), 0), said}
  end
  local last_window = 0
  for _, window in ipairs(windows) do last_window = math.max(last_window, window.us) end
  local lost = head.covers > 0 and math.max(head.covers + last_window - now, 0) or 0
  return {3, cjson.encode({
    windows = shown, in_flight = head.units, opens = math.max(opens - now, 0), unsure = unsure,
    waiting = redis.call('ZCOUNT', waiting_key, '(' .. integer(now), '+inf'),
    paused = math.max(head.paused_until - now, 0), reason = rare().reason, canary = head.canary == OUT,
    paced = is_paced(), paced_why = rare().paced_why, widened = head.widened_us, lost = lost, lost_why = rare().made,
    granted = head.granted, hits = head.hits, sleeps = head.sleeps, slept = head.slept_us, foreign = head.foreign,
    sleeping = head.slept_since > 0 and math.max(math.min(now, head.slept_until) - head.slept_since, 0) or 0,
    notes = notes,
  })}
end

-- ---------------------------------------------------------------- the story

local function info()
  local learned = head.paced + (head.widened_us > 0 and 1 or 0)
  return string.format('%.0f %.0f %.0f %.0f %d', head.epoch, head.seq, head.offset, now, learned)
end

local lost = what_is_lost()
if lost then
  if not request.anew then return {-2, lost} end
  make(lost)
end
-- By a clock that seems to have been set forward nothing is done until the caller has measured it, but to look.
if seen and seen[1] == head.epoch and now > seen[4] + LATE_US and not (stepped or request.sure or request.look) then
  head.offset = stored_offset
  return {-3, 0, info()}
end
local paused = request.paused
if paused and not request.pause and seen and seen[1] ~= head.epoch and now + paused[1] > head.paused_until then
  head.paused_until, head.canary = now + paused[1], WANTED
  rare_to_change().reason = paused[2]
end
if ask or #ARGV >= first_done or stepped or lost then head.last = now end   -- who only tells may not know the time
head.last_save = last_save
if stepped then note(string.format('the clock of Redis went %.3f s ahead: not believed', step[3] / 1e6)) end
if largest > head.size and not request.look then grow(largest) end -- a look does not write the header
local gave_up = give_up_unanswered()

local granted_of = {}
for i = first_done, #ARGV, 2 do
  local id, age_us = ARGV[i], tonumber(ARGV[i + 1])
  local weight, granted_at = take_out(id)
  if weight then
    complete(math.max(now - age_us, granted_at), weight, granted_at)
    granted_of[id] = granted_at
    if is_canary(id) then
      if request.pause and request.pause.id == id then
        request.pause.was_canary = true
      else
        head.in_a_row = 0
      end
      head.canary = FREE
    end
  end
end
for _, id in ipairs(request.drop or {}) do
  if take_out(id) and is_canary(id) then head.canary = WANTED end
end
local explained = head.foreign_at > 0 and now - head.foreign_at < 10000000
for _, said in ipairs(request.said or {}) do
  if granted_of[said[1]] and hear(said, granted_of[said[1]]) then explained = true end
end
if request.leave then redis.call('ZREM', waiting_key, request.leave) end
if request.ended then forget_run(request.ended) end
local slept = 0
if request.stop then
  if request.stop[2] == 1 then slept = cut_sleep(request.stop[1]) end
  local stopped = rare_to_change().stopped
  for run, til in pairs(stopped) do
    if til <= now then stopped[run] = nil end
  end
  stopped[request.stop[1]] = request.stop[2] == 1 and now + STOP_US or nil
  head.stops = next(stopped) and 1 or 0
end
if request.relearn then
  local its = rare_to_change()
  its.paced_why, its.adopted, its.tats = '', {}, nil
  head.paced, head.paced_at, head.widened_us, head.adopted = 0, 0, 0, 0
  note(request.relearn)
end

local hit = 0
if request.pause then hit = pause(request.pause, granted_of[request.pause.id], explained) end

local reply = {2, math.max(head.paused_until - now, 0), slept}
if ask then reply = acquire(ask) elseif request.look then reply = report() end
if not request.look or gave_up then save() end
reply[#reply + 1] = hit
reply[#reply + 1] = info()
return reply
