-- Grants permits of one budget, records completed requests, and reports the state, in one atomic round trip.
-- docs/limiter.md has the proof.
--
-- KEYS  1 state    string  the header: FIELDS as doubles, then the rare part in msgpack; it never expires
--       2 ring     string  the last max(L) completion instants, 8 bytes each, entry k at (k mod size) * 8, sorted
--       3 flight   hash    permits in flight: id -> deadline, instant of the grant, weight
--       4 waiting  zset    waiters: name -> the instant promised; 'away ' before the name of a waiter that does not sleep
--       5 runs     hash    runs that wait, or share the budget: id -> msgpack, see record()
--       6 notes    list    decisions and their reasons, the newest first: "instant text"
-- ARGV  1 now in microseconds, or "" for Redis TIME
--       2 "1" where the script was not in Redis's cache: Redis may have been restarted
--       3 the budget, as doubles: share, profile (of PROFILES), trust (0 or 1), and L, W_us, seconds, burst of each window
--       4 what the caller last saw of the state, as doubles: epoch, seq, counts_us, the latest that now can be; or ""
--       5 JSON of the rare parts of a request, or "":
--           anew  {epoch, counts_us, ttl_us, profile, why, widened_us, learned_us, relax_us, paused}
--                                                make lost state anew, see make()
--           paused [us, reason]                  the caller knows of a pause, and how much of it is left
--           sure  true                           Redis's time is right though it is later than the caller expected
--           step  [epoch, offset, us]            a reply proved that the clock was set forward by this much
--           drop  [id, ...]                      permits whose requests were never sent
--           bad   [id, ...]                      permits whose requests were refused, or answered with 500 and above
--           again [id, ...]                      permits whose requests were answered (401) and are sent again
--           said  [[id, window, limit, remaining, named, header, reset_us], ...]   what responses' headers said
--           pause {id, us, asked, status, reason, refused_at, alone}   the request of permit id was refused
--           stop  [run, 1 or 0]                  the run was stopped, or resumed
--           relearn text                         forget what the API taught: profile, widening, limits it named
--           leave waiter                         the waiter no longer waits
--           ended run                            the run has ended: reserve nothing for it
--           vouch true                           the last stop of this Redis was orderly: nothing was lost
--           look  true                           report the state; write only that permits have expired
--           weight number                        with look: the weight of the request that waits; 1 where missing
--       6 a permit request, as doubles: weight, ttl_us, patience_us, knock (1: ask without a place in the queue); or ""
--       7 the waiter; 8 its run, or ""; 9 the number of ids that it asks for; 10... these ids
--       ... then pairs: the id of a permit whose response has arrived, and how long ago in microseconds
-- Reply {1, waited_us, permits, hit, info}          granted: that number of the ids, the first ones
--       {0, wait_us, reason, slept, hit, info}      not granted; slept = 1: this closing is new to the run
--       {2, paused_us, slept_us, own, hit, info}    no permit requested; slept_us: of the sleep that a stop ended;
--                                                   own = 1: the refusal concerns one request alone, see is_own()
--       {3, JSON}                                   the state, see report()
--       {4, reason, hit, info}                      the run was stopped
--       {-1, L, hit, info}                          weight is above the limit L
--       {-3, 0, info}                               now is later than expected: nothing was done; see `sure` and `step`
--       {-2, why}                                   the state is lost: nothing was done; call again with `anew`
--       an error that begins with SLUICE            a number is out of range: nothing was read or written
-- info: "epoch seq offset now learned"; learned: 4 times the hits, plus 1 where auto is paced, plus 2 where its windows
-- are longer, too.
-- All scripts of version 1, old and new ones at the same time, read and write a state of version 1. Fields that were
-- added later are in the msgpack part, which an old script writes back unchanged.
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
local KEPT_US = 1500000               -- how long a window's last permits are reserved for a run that had fewer
local STOP_US = 60000000              -- how long a stopped run is refused permits; its lanes ask the database then
local FORGOTTEN_US = 3600000000       -- a run that asked for nothing for that long is removed
local LATE_US = 1000000               -- a call that takes longer than that is repeated
local MOST = 1000000                  -- the largest limit
local NEVER = 2 ^ 52
local UNDECIDED = 'P'                 -- the state's last byte, where note_served() must act without unpacking
local SHORT_SECONDS = 100             -- auto paces windows up to that length
local RELAX_US = 600000000            -- auto forgets after that long without a refusal; twice as long after a relapse
local LONGEST_RELAX_US = 604800000000 -- but at the latest after a week
local RELAPSE_US = 86400000000        -- a refusal within a day of that is a relapse
local MINUTE_US = 60000000            -- the longest first pause where the API does not say how long

local state_key, ring_key, flight_key, waiting_key, runs_key, notes_key = unpack(KEYS)

local function integer(value) return string.format('%.0f', value) end
local function instant_bytes(value) return struct.pack('>I8', value) end

-- ---------------------------------------------------------------- the request

-- False for NaN, for fractions, and for a value that is not a number.
local function whole(value, least, most)
  return type(value) == 'number' and value == math.floor(value) and value >= least and value <= most
end

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

-- Which numbers are out of range; nil where none is. The caller checks them too, with a message that says the repair.
local function what_cannot_be()
  if not (share > 0 and share <= 1 and profile) then return 'share or profile' end
  for at = 4, #ARGV[3] / 8, 4 do
    local requests, us, burst = configured[at], configured[at + 1], configured[at + 3]
    if requests % 1 + us % 1 + burst % 1 ~= 0 or requests < 1 or requests > MOST or us < 1 or us > NEVER or burst < 0
        or burst > MOST or not (configured[at + 2] > 0) then return 'a limit' end
  end
  if ask then
    if ask.weight % 1 ~= 0 or ask.weight < 1 or ask.weight > MOST or #ARGV[3] <= 24 then return 'a weight' end
    if ask.ttl_us % 1 ~= 0 or ask.ttl_us < 1 or ask.ttl_us > NEVER / 4 then return 'a timeout' end
    if not (ask.patience_us >= 0) or not ask.ids[1] then return 'a question' end
  end
  for i = first_done + 1, #ARGV, 2 do
    local age = tonumber(ARGV[i])
    if not age or age % 1 ~= 0 or age < 0 or age > NEVER then return 'an age' end
  end
  if request.pause and not whole(request.pause.us, 0, NEVER / 4) then return 'a pause' end
end

local flaw = what_cannot_be()
if flaw then return redis.error_reply('SLUICE ' .. flaw .. ' cannot be: nothing was done') end

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

local stored = redis.pcall('GET', state_key)  -- an error where the key has another type
local head, rare_, rare_moved
-- Whether the numbers are valid: an earlier script accepted fractions and negative weights. NaN % 1 is not zero.
local function is_sound(its)
  local parts = its.epoch % 1 + its.seq % 1 + its.size % 1 + its.n % 1 + its.base % 1 + its.units % 1 + its.permits % 1
    + its.next_deadline % 1 + its.longest_ttl % 1 + its.last % 1 + its.latest % 1 + its.offset % 1 + its.made_at % 1
    + its.covers % 1 + its.paused_until % 1 + its.incident_at % 1 + its.in_a_row % 1 + its.canary % 1 + its.paced % 1
    + its.paced_at % 1 + its.widened_us % 1 + its.foreign % 1 + its.foreign_at % 1 + its.closing % 1
    + its.closing_opens % 1 + its.granted % 1 + its.hits % 1 + its.sleeps % 1 + its.slept_us % 1
  return parts == 0 and its.size >= 1 and its.size <= MOST and its.n >= its.size and its.permits >= 0
    and its.units >= its.permits
end

local broken              -- a state whose numbers are not valid
if type(stored) == 'string' and #stored > FIELDS * 8 then
  head = head_of(struct.unpack(FORMAT, stored))
  if head.version ~= VERSION then head = nil
  elseif not is_sound(head) then head, broken = nil, head end
end

local moved_at = head and head.last - head.offset     -- when the state changed last, by the clock of Redis

-- The msgpack part, which is rarely read: canary_id, hit_id, reason, run_id, made, paced_why, adopted, tats, stopped,
-- ignored, heaviest; own_id, served_at, refused_at, undecided: see is_own(); others: see debit(); named: see hear();
-- lesson: see mistrust().
local function rare()
  if rare_ then return rare_ end
  local readable, its = pcall(cmsgpack.unpack, string.sub(stored, FIELDS * 8 + 1))
  rare_ = readable and type(its) == 'table' and its or {run_id = '', tats = {}}
  for _, name in ipairs({'canary_id', 'hit_id', 'reason', 'made', 'paced_why'}) do rare_[name] = rare_[name] or '' end
  rare_.adopted, rare_.stopped = rare_.adopted or {}, rare_.stopped or {}
  return rare_
end

local function rare_to_change()
  rare_moved = true
  return rare()
end

local function save()
  head.seq = head.seq + 1
  local tail
  if rare_moved then
    tail = cmsgpack.pack(rare_) .. (rare_.undecided and UNDECIDED or '')
  else
    tail = string.sub(stored, FIELDS * 8 + 1)
  end
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
  redis.pcall('LPUSH', notes_key, integer(now) .. ' ' .. text)  -- nothing depends on a note
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

-- After the clock was set back, time continues from the last instant. A step forward is taken back when a caller
-- proves it.
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

-- ---------------------------------------------------------------- the lesson of auto, which expires

local function level() return head.paced + (head.widened_us > 0 and 1 or 0) end

local function relaxes_at()
  local lesson = rare().lesson or {}
  return math.max(head.incident_at, head.paused_until, lesson.since or 0) + (lesson.relax or RELAX_US)
end

-- Runs before any decision. A look computes with it, but does not save it.
local relaxed
local function relax()
  if level() == 0 or now < relaxes_at() then return end
  local its = rare_to_change()
  relaxed = (its.lesson or {}).relax or RELAX_US
  its.lesson = {was = level(), over = now, relax = relaxed}
  head.paced, head.widened_us = 0, 0
  if profile ~= 'paced' then head.paced_at, its.tats = 0, nil end
end
if head then relax() end

-- ---------------------------------------------------------------- the limits in force

local windows, largest = {}, 0
local function key_of(seconds) return string.format('%g', seconds) end

-- How much of a window other programs have spent, and until when that counts.
local function spent_by_others(seconds)
  local its = head and head.foreign > 0 and (rare().others or {})[key_of(seconds)]
  if its and its[2] > now then return its[1], its[2] end
  return 0, 0
end

for at = 4, #ARGV[3] / 8, 4 do
  local requests, us, seconds, burst = configured[at], configured[at + 1], configured[at + 2], configured[at + 3]
  local full = head and head.adopted > 0 and rare().adopted[key_of(seconds)] or requests
  if not trust then full = math.min(full, requests) end
  local others, others_until = spent_by_others(seconds)
  windows[#windows + 1] = {
    limit = share == 1 and full or math.max(1, math.floor(full * share + 1e-6)),
    full = full,
    configured = requests,
    others = others,
    others_until = others_until,
    paced = profile == 'paced' or seconds <= SHORT_SECONDS,
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
  local bytes, left = instant_bytes(head.latest), math.min(weight, head.size)   -- the ring has no room for more
  while left > 0 do
    local at = head.n % head.size
    local fits = math.min(left, head.size - at)
    redis.call('SETRANGE', ring_key, at * 8, string.rep(bytes, fits))
    head.n = head.n + fits
    left = left - fits
  end
end

-- A larger limit than any before: completions that the ring has dropped count as the oldest one in it. There were
-- n - base in all.
local function grow(size)
  local bytes, first, more = redis.call('GET', ring_key), (head.n % head.size) * 8, size - head.size
  local ordered = string.sub(bytes, first + 1) .. string.sub(bytes, 1, first)
  local forgotten = math.min(math.max(head.n - head.base - head.size, 0), more)
  ordered = string.rep(string.sub(ordered, 1, 8), forgotten) .. ordered
  redis.call('SET', ring_key, string.rep(instant_bytes(0), more - forgotten) .. ordered)
  head.base = head.base + size - head.n
  head.size, head.n = size, size
end

-- The number of completions after `instant`: the entries are sorted, so bisect.
local function completed_after(instant)
  local low, high = head.n - head.size, head.n
  while low < high do
    local middle = math.floor((low + high) / 2)
    if entry(middle) > instant then high = middle else low = middle + 1 end
  end
  return head.n - low
end

-- ---------------------------------------------------------------- the pace, an additional check of the profile paced

-- The most permits in flight, and for each window: one unit every `interval`, after a burst, so that
-- burst + flight + W / interval <= L (docs/limiter.md, Profiles). With one in flight the interval runs from its end.
-- Where requests weigh more than one, each counts as one of the heaviest so far, and L as the number of those.
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
    local flight = not window.paced and NEVER or (limit < 10 or most < 4) and 1 or math.min(math.floor(limit / 10), math.floor(most / 2))
    pace_.flight = math.min(pace_.flight, flight)
  end
  for _, window in ipairs(windows) do
    local limit, most = of_heaviest(window)
    local flight, burst, rate = pace_.flight, 1, limit - 1
    if limit == 1 then rate = 0.5 end
    if flight > 1 then
      burst = math.min(math.max(2, math.floor(limit / 50)), most - flight)
      rate = limit - burst - flight
    end
    if window.paced then
      local its = {key = key_of(window.seconds), us = window.us, interval = window.us / rate, burst = burst}
      pace_[#pace_ + 1] = its
      pace_.slowest = math.max(pace_.slowest, its.interval)
    end
  end
  return pace_
end

local function is_paced()
  return profile == 'paced' or (profile == 'auto' and head.paced == 1)
end

local function charge(instant, requests)
  local tats = rare_to_change().tats
  for _, its in ipairs(pace()) do
    tats[its.key] = math.floor(math.max(tats[its.key] or 0, instant) + requests * its.interval) + 1
  end
end

-- Charge the pace with all known requests. Those in flight count as sent now, a block of ring entries as its last one.
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
  local tats = rare().tats            -- no server counts more than two windows back
  for _, its in ipairs(pace()) do
    tats[its.key] = math.min(tats[its.key] or 0, math.max(now, head.latest) + 2 * its.us)
  end
end

-- Whether the pace of every window that this caller paces is recorded: another caller can pace fewer windows.
local function has_begun()
  if head.paced_at == 0 or not rare().tats then return false end
  for _, its in ipairs(pace()) do
    if not rare().tats[its.key] then return false end
  end
  return true
end

-- The first instant at which the pace allows a request, by what was charged: of all windows, or of those of length `us`.
local function pace_opens(us)
  local at, tats = now, rare().tats or {}
  for _, its in ipairs(pace()) do
    -- every charge was rounded up by a microsecond at most
    if not us or its.us == us then at = math.max(at, (tats[its.key] or 0) - (its.burst - 1) * its.interval - its.burst) end
  end
  return at
end

-- The instant at which the pace allows a request to the `place`-th in the queue (0: the first), and whether it depends
-- on the end of a request in flight.
local function paced_opening(_, place)
  local at = pace_opens()
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

-- Complete a permit at `instant`, which is not before its request was counted. Where only one can be in flight, the
-- pace runs from its end. A permit granted before the pace began is charged again.
local function complete(instant, weight, granted_at)
  append(instant, weight)
  if head.paced_at == 0 then return end
  if granted_at < head.paced_at then charge(instant, weight) end
  if pace().flight > 1 then return end
  local tats = rare_to_change().tats
  for _, its in ipairs(pace()) do
    tats[its.key] = math.max(tats[its.key] or 0, math.floor(instant + its.interval) + 1)
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

-- The run id of this Redis server: read only where the state is in doubt.
local function server()
  if server_ then return server_ end
  server_ = {run_id = ''}
  local info = redis.pcall('INFO', 'server')
  if type(info) ~= 'string' then return server_ end
  server_.run_id = string.match(info, 'run_id:(%x+)') or ''
  return server_
end

-- When Redis starts, it sets its last save to now, and it has no script. A start in the same second as the save before
-- it is visible as a state that did not change after that second: Redis can have stopped in that second.
local last_save = redis.pcall('LASTSAVE')
if type(last_save) ~= 'number' then last_save = 0 end
local moved_since = ARGV[1] ~= '' or (moved_at and moved_at >= (last_save + 1) * 1000000)

-- Samples the entries of a large ring. Each process checks it with its first permit request.
local function is_sorted()
  local bytes, step, before = redis.call('GET', ring_key), math.ceil(head.size / 4096), 0
  for index = head.n, head.n + head.size - 1, step do
    local instant = struct.unpack('>I8', bytes, (index % head.size) * 8 + 1)
    if instant < before then return false end
    before = instant
  end
  return before <= head.latest
end

local function what_is_lost()
  if broken then return 'its numbers cannot be' end
  if not head then return stored and 'its state cannot be read' or 'its state is gone' end
  if redis.pcall('STRLEN', ring_key) ~= head.size * 8 or redis.pcall('HLEN', flight_key) ~= head.permits then
    return 'a part of its state is gone'
  end
  if ask and not seen and not is_sorted() then return 'its completions are in disorder' end
  if seen and seen[1] == head.epoch and seen[2] > head.seq then return 'Redis went back to an older state' end
  if seen and seen[1] ~= head.epoch and now + seen[3] > head.covers then return 'its state was made anew by another' end
  if request.vouch then rare_to_change().run_id = server().run_id end
  if (ARGV[2] == '1' or last_save ~= head.last_save or not moved_since) and rare().run_id ~= server().run_id then
    return 'Redis was started again'
  end
end

-- The windows count as full until W after `covers`, the last instant at which a request that was lost can be counted.
-- Only where the budget was never used, as far as the caller knows, it opens empty.
local function salvage()
  if not broken then return head end
  for name, value in pairs(broken) do
    if not whole(value, -2 * NEVER, 2 * NEVER) then broken[name] = 0 end
  end
  broken.size, broken.permits = math.max(math.min(broken.size, MOST), 0), 1
  broken.last, broken.latest = math.min(broken.last, now), math.min(broken.latest, now)
  broken.longest_ttl = math.max(math.min(broken.longest_ttl, RELAPSE_US), 0)
  broken.covers, broken.offset, broken.paced_at = math.min(broken.covers, now), 0, 0
  return broken
end

local function make(why)
  local anew, old = request.anew, salvage()
  local old_rare = old and rare() or {}
  local ttl = math.max(anew.ttl_us, old and old.longest_ttl or 0)
  local used = stored or redis.call('EXISTS', ring_key, flight_key) > 0
  local covers = anew.counts_us and now + anew.counts_us or (used and now + ttl) or 0
  if old and old.covers == 0 then covers = math.max(covers, old.made_at + ttl) end
  -- Keep what the old state still knows: completed requests, and requests in flight until their deadline.
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
  local lesson = old_rare.lesson or {}
  if anew.relax_us > 0 and now - anew.learned_us > (lesson.since or lesson.over or 0) then
    lesson = anew.profile == 'paced' and {since = now - anew.learned_us} or {was = 1, over = now - anew.learned_us}
    lesson.relax, old_rare.lesson = anew.relax_us, lesson
  elseif not (lesson.since or lesson.over) and anew.profile == 'paced' then
    old_rare.lesson = {since = now}      -- saved by a process of a version that did not save for how long
  end
  if anew.paused and now + anew.paused[1] > head.paused_until then
    head.paused_until, head.canary, old_rare.reason = now + anew.paused[1], WANTED, anew.paused[2]
  end
  rare_ = {
    made = covers > 0 and why or '', run_id = server().run_id,
    reason = old_rare.reason or '', paced_why = old_rare.paced_why or anew.why or '', adopted = old_rare.adopted or {},
    canary_id = '', hit_id = old_rare.hit_id or '', stopped = {},
    heaviest = old_rare.heaviest, lesson = old_rare.lesson, others = old_rare.others, named = old_rare.named,
    served_at = old_rare.served_at, refused_at = old_rare.refused_at, own_id = old_rare.own_id,
    undecided = old_rare.undecided,
  }
  rare_moved, stepped = true, false
  redis.call('SET', ring_key, string.rep(instant_bytes(covers), head.size))
  redis.call('DEL', flight_key, waiting_key, runs_key)
  if covers > 0 then note(why .. ': its windows are taken as full') end
  if old and old.paced_at > 0 then begin_pace() end
  relax()
end

-- ---------------------------------------------------------------- the next opening

-- The instant at which the `place`-th waiter in the queue (0: the first) could be granted `weight`, and the window that
-- decides.
local function opens_of(window, weight, place, others)
  local index = head.n - (window.limit - others - head.units - weight) - 1 + place
  if index >= head.n then return math.max(now, head.latest) + window.us end   -- one in flight must complete and age
  return index >= head.n - head.size and entry(index) + window.us or now
end

local function opening(weight, place)
  local at, why = now, 0
  for i, window in ipairs(windows) do
    local opens = opens_of(window, weight, place, window.others)
    if window.others > 0 and opens > window.others_until then
      opens = math.max(window.others_until, opens_of(window, weight, place, 0))
    end
    if opens > at then at, why = opens, i end
  end
  return at, why
end

-- The instants promised to the waiters that sleep for a permit, sorted. A waiter with a longer wait does not sleep and
-- has no place until it asks again: an opening reserved for it would pass unused if it came late.
local function in_line()
  local promised = {}
  if head.line_until <= now then return promised end
  local waiters = redis.call('ZRANGEBYSCORE', waiting_key, '(' .. integer(now), '+inf', 'WITHSCORES')
  for i = 1, #waiters, 2 do
    if string.sub(waiters[i], 1, 5) ~= 'away ' then promised[#promised + 1] = tonumber(waiters[i + 1]) end
  end
  return promised
end

-- The first opening that is promised to no waiter: of p + 1 openings up to an instant, at most p waiters sleep for one.
local function free_opening(weight, line, opens_at)
  local place = 0
  local opens, why = opens_at(weight, 0)
  while line[place + 1] and line[place + 1] <= opens do
    place = place + 1
    opens, why = opens_at(weight, place)
  end
  return opens, why
end

-- ---------------------------------------------------------------- runs: their planned waits, and a fair share

-- closing: of its last sleep; since, told: begin and promised end of the current sleep (since = 0: none); by, waited: the
-- request that ended a sleep, and its length; used: permits granted since `used_in`, a closing; seen: its last request.
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

-- A run that asked lately and had fewer permits than this one, if the last permits of the window are reserved for such.
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

-- Remove runs that asked for nothing for an hour.
local function forget_runs()
  if redis.call('HLEN', runs_key) <= 64 then return end
  local all = redis.call('HGETALL', runs_key)
  for i = 1, #all, 2 do
    local its = cmsgpack.unpack(all[i + 1])
    if math.max(its.told, its.seen) < now - FORGOTTEN_US then forget_run(all[i]) end
  end
end

-- `opens` is when the closing ends for the first in the queue; nil: the closing began earlier, and was counted then.
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

-- The begin of a wait that can have begun earlier, less the time for which no wait was promised.
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

-- End the sleep of a stopped run; return how long it was.
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

-- ---------------------------------------------------------------- refuse, or grant

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

-- Far from every limit a caller is granted all ids at once: a quarter of each window stays free.
local function how_many(ask, paced)
  if #ask.ids == 1 or paced or head.canary ~= FREE then return 1 end
  for _, window in ipairs(windows) do
    local free = window.limit - window.others - head.units - math.ceil(window.limit / 4)
    local index = head.n - (free - #ask.ids * ask.weight) - 1
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

-- The reply to this permit request was lost, and the caller repeats it.
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
    local most = is_paced() and window.paced and window.burst > 0 and math.min(window.burst, window.limit) or window.limit
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
  if paced and not has_begun() then begin_pace() end
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

-- ---------------------------------------------------------------- response headers, refusals

-- The header says that less remains than this state explains: other programs spend the quota. With a share, only what
-- exceeds their part is debited. It counts until the reset that the same headers state, plus a second for truncation,
-- and never longer than the window.
local function debit(window, limit, remaining, granted_at, header, reset_us)
  local since, not_ours = granted_at - window.us, window.full - window.limit
  local spent = limit - remaining - not_ours - head.units    -- our requests that would explain what is spent
  if spent <= window.others or (spent <= head.size and entry(head.n - spent) > since) then return false end
  local foreign = math.min(spent - completed_after(since), window.full)
  local more = foreign - window.others
  if more <= 0 then return false end
  if now - head.foreign_at > 10000000 then
    note(string.format('%d of %s spent by others, says %s', more, title(window), header))
  end
  window.others, window.others_until = foreign, now + window.us
  if reset_us >= 0 then window.others_until = math.min(now + window.us, now + reset_us + 1000000) end
  local its = rare_to_change()
  its.others = its.others or {}
  its.others[key_of(window.seconds)] = {foreign, window.others_until}
  head.foreign, head.foreign_at = head.foreign + more, now
  return true
end

local function adopt(window, limit)
  local its, key = rare_to_change(), key_of(window.seconds)
  its.adopted[key] = limit
  if not trust and limit >= window.configured then its.adopted[key] = nil end
  head.adopted = next(its.adopted) and 1 or 0
  window.full, window.limit = limit, math.max(1, math.floor(limit * share + 1e-6))
  if limit > head.size then grow(limit) end
  pace_ = nil
end

-- Noted once, and at most ten of them, because some APIs name another number each time.
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

-- Different limits that responses lately named for a window: the lowest, the highest, when one was named last.
local function disagreement(window)
  local its = (rare().named or {})[key_of(window.seconds)]
  return its and now - its.at < math.max(MINUTE_US, 2 * window.us) and its or nil
end

local function disagree(window, low, high)
  local its, before = rare_to_change(), disagreement(window)
  its.named = its.named or {}
  low, high = math.min(low, before and before.low or low), math.max(high, before and before.high or high)
  its.named[key_of(window.seconds)] = {low = low, high = high, at = now, since = before and before.since or now}
  return before
end

-- A response names the limit of a window. A lower limit is adopted at once. Where other responses then name a higher
-- one, the lower one is that of some requests only (list pages, for example) and must not bind the others. A limit never
-- exceeds the configured one, unless the server is trusted. Returns whether the response explains a refusal.
local function hear_limit(window, limit, granted_at, header)
  local its = disagreement(window)
  if its and limit > its.low and now - its.at > 1000000 then disagree(window, its.low, limit) end
  local allowed = trust and limit or math.min(limit, window.configured)
  if limit < window.full then
    if its and limit >= its.low then return true end
    note(string.format('%s is %d now, says %s', title(window), limit, header))
    adopt(window, limit)
    rare_to_change().adopted_at = now
    return true
  end
  if allowed <= window.full or granted_at < (rare().adopted_at or 0) then return false end
  local low = window.full
  if low < window.configured and not disagree(window, low, limit) then
    note(string.format('answers name %d and %d for %s: the lower one binds only some', low, limit, title(window)))
  else
    note(string.format('%s is %d now, says %s', title(window), allowed, header))
  end
  adopt(window, allowed)
  return false
end

-- Apply one header's statement about a window; return whether it explains a refusal.
local function hear(said, granted_at)
  local _, index, limit, remaining, named, header, reset_us = unpack(said)
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
  if named == 1 and limit >= 1 and limit <= MOST then explains = hear_limit(window, limit, granted_at, header) end
  if remaining >= 0 and limit == window.full then
    explains = debit(window, limit, remaining, granted_at, header, reset_us or -1) or explains
  end
  return explains
end

-- An unexplained refusal: pace the short windows, because the API can refuse bursts; at the second one make windows
-- longer, because its clock can be coarse. This expires, see relax(). A refusal within a day after that restores all of
-- it at once, for twice as long. Returns whether the pace has begun.
local function mistrust()
  local its, why = rare_to_change(), 'the API refused a request though every window had room'
  local lesson, before, again = its.lesson or {}, level(), ''
  local learned, lasts = math.min(before + 1, 2), lesson.relax or RELAX_US
  if before == 0 and lesson.was and now < lesson.over + math.max(lasts, RELAPSE_US) then
    learned, lasts, again = lesson.was, math.min(2 * lasts, LONGEST_RELAX_US), ' again'
  elseif before == 0 then
    lasts = RELAX_US
  end
  its.lesson, its.paced_why = {since = now, relax = lasts, alone = before == 0 and learned == 1 or nil}, why
  local til = string.format(' until none was refused for %.0f s', lasts / 1e6)
  head.paced = 1
  if learned == 2 and before < 2 then
    head.widened_us, pace_ = 1000000, nil
    for _, window in ipairs(windows) do window.us = window.us + 1000000 end
  end
  if before == 0 and #pace() > 0 then
    begin_pace()
    note(why .. again .. ': paced' .. til)
    return true
  elseif before == 0 then
    note(why .. again .. ': none of its windows is short enough to be paced')
  elseif before < 2 then
    note(why .. ' again: windows are a second longer, too,' .. til)
  end
end

-- Whether a refusal concerns one request alone, of an item or a list page: after its refusal before, another request was
-- granted and answered. The budget learns nothing from it.
local function is_own(order)
  return order.alone or ((order.refused_at or 0) > 0 and (rare().served_at or 0) > order.refused_at)
end

-- A request was answered and not refused. Reads and writes only what is_own() needs to decide about the refusals so far:
-- nothing, once a request that was granted after the last refusal was answered.
local function note_served(granted_at, is_canary)
  if not is_canary and not (stored and string.sub(stored, -1) == UNDECIDED) then return end
  if granted_at <= (rare().served_at or 0) then return end
  local its = rare_to_change()
  its.served_at = granted_at
  its.undecided = granted_at <= (its.refused_at or 0) or nil
end

-- Take back what a refusal taught, when the next one shows that both concern the same request alone.
local function take_back(order)
  local its = rare_to_change()
  if not (its.lesson and its.lesson.alone and its.lesson.since == order.refused_at) then return end
  its.lesson, its.paced_why, head.paced = nil, '', 0
  if profile ~= 'paced' then head.paced_at, its.tats = 0, nil end
  note('the refusal that it was paced for was of one request alone')
end

local function count_own(order)
  take_back(order)
  local its = rare_to_change()
  if its.own_id ~= order.id then
    head.hits, its.own_id, its.refused_at, its.undecided = head.hits + 1, order.id, now, true
  end
  if order.was_canary then head.canary = WANTED end
  return 1
end

-- The length of a pause. Each refusal in a row doubles it: that outlasts a penalty that every try renews, and a wait that
-- the API stated too short. A pace that has just begun counts earlier requests: where the canary waits half the window or
-- more for them, half the window is enough.
local function pause_us(order, shortest, begun)
  local times = 2 ^ math.min(math.max(head.in_a_row - 1, 0), 30)
  if order.asked then return math.max(order.us, math.min(order.us * times, order.longest_us)) end
  local first = begun and pace_opens(shortest) >= now + shortest / 2 and shortest / 2 or shortest
  return math.min(math.min(first, MINUTE_US) * times, order.longest_us)
end

local function pause(order, granted_at, explained)
  local first = now >= head.paused_until and (granted_at or now) > head.incident_at and rare().hit_id ~= order.id
  local shortest, longest, begun = NEVER, 0, false
  for _, window in ipairs(windows) do
    shortest, longest = math.min(shortest, window.us), math.max(longest, window.us)
  end
  if first then
    head.incident_at = now
    head.hits = head.hits + 1
    head.in_a_row = head.in_a_row + 1
    local its = rare_to_change()
    its.hit_id, its.refused_at, its.undecided = order.id, now, true
    note(order.reason)
    -- A wait longer than every window is about a limit that is not configured.
    local of_ours = order.status == 429 and not (order.asked and order.us > longest + 2000000)
    begun = profile == 'auto' and of_ours and not explained and not order.was_canary and mistrust()
  end
  local us = pause_us(order, shortest, begun)
  if now + us > head.paused_until then
    head.paused_until = math.floor(now + us)
    rare_to_change().reason = order.reason
  end
  if now < head.closing_opens then head.closing_opens = math.max(head.closing_opens, head.paused_until) end
  head.canary = WANTED
  return rare().hit_id == order.id and 1 or 0
end

-- ---------------------------------------------------------------- the state report

local function report()
  local shown = {}
  for i, window in ipairs(windows) do
    shown[i] = {window.full, window.limit, head.units + completed_after(now - window.us) + window.others}
  end
  local opens, unsure = opening(request.weight or 1, 0), false
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
  local paced, lesson = is_paced() and #pace() > 0, rare().lesson or {}
  return {3, cjson.encode({
    level = level(), learned = math.max(now - (lesson.since or lesson.over or now), 0),
    relax = lesson.relax or 0, relaxes = level() > 0 and math.max(relaxes_at() - now, 0) or 0,
    windows = shown, in_flight = head.units, opens = math.max(opens - now, 0), unsure = unsure,
    waiting = redis.call('ZCOUNT', waiting_key, '(' .. integer(now), '+inf'),
    paused = math.max(head.paused_until - now, 0), reason = rare().reason, canary = head.canary == OUT,
    paced = paced, paced_why = rare().paced_why, widened = head.widened_us, lost = lost, lost_why = rare().made,
    granted = head.granted, hits = head.hits, sleeps = head.sleeps, slept = head.slept_us, foreign = head.foreign,
    sleeping = head.slept_since > 0 and math.max(math.min(now, head.slept_until) - head.slept_since, 0) or 0,
    notes = notes,
  })}
end

-- ---------------------------------------------------------------- the call, from top to bottom

local function info()
  return string.format('%.0f %.0f %.0f %.0f %.0f', head.epoch, head.seq, head.offset, now, 4 * head.hits + level())
end

local lost = what_is_lost()
if lost then
  if not request.anew then return {-2, lost} end
  make(lost)
end
-- Where the clock seems to have been set forward, do nothing until the caller has measured it; a look is allowed.
if seen and seen[1] == head.epoch and now > seen[4] + LATE_US and not (stepped or request.sure or request.look) then
  head.offset = stored_offset
  return {-3, 0, info()}
end
local paused = request.paused
if paused and not request.pause and seen and seen[1] ~= head.epoch and now + paused[1] > head.paused_until then
  head.paused_until, head.canary = now + paused[1], WANTED
  rare_to_change().reason = paused[2]
end
if ask or #ARGV >= first_done or stepped or lost then head.last = now end   -- a report alone can come with a wrong time
head.last_save = last_save
if stepped then note(string.format('the clock of Redis went %.3f s ahead: not believed', step[3] / 1e6)) end
if relaxed and not request.look then
  note(string.format('no refusal for %.0f s: as configured again', relaxed / 1e6))
end
if largest > head.size and not request.look then grow(largest) end -- a look does not write the header
local gave_up = give_up_unanswered()

local granted_of, bad = {}, {}
for _, id in ipairs(request.bad or {}) do bad[id] = true end
local again = {}
for _, id in ipairs(request.again or {}) do bad[id], again[id] = true, true end
if request.pause then bad[request.pause.id] = true end
for i = first_done, #ARGV, 2 do
  local id, age_us = ARGV[i], tonumber(ARGV[i + 1])
  local weight, granted_at = take_out(id)
  if weight then
    complete(math.max(now - age_us, granted_at), weight, granted_at)
    granted_of[id] = granted_at
    if not bad[id] then note_served(granted_at, is_canary(id)) end
    if is_canary(id) then
      if request.pause and request.pause.id == id then request.pause.was_canary = true end
      if not bad[id] then head.in_a_row = 0 end
      head.canary = again[id] and WANTED or FREE
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
  its.paced_why, its.adopted, its.tats, its.lesson, its.named = '', {}, nil, nil, nil
  head.paced, head.paced_at, head.widened_us, head.adopted = 0, 0, 0, 0
  note(request.relearn)
end

local hit, own = 0, request.pause and is_own(request.pause)
if own then
  hit = count_own(request.pause)
elseif request.pause then
  hit = pause(request.pause, granted_of[request.pause.id], explained)
end

local reply = {2, math.max(head.paused_until - now, 0), slept, own and 1 or 0}
if ask then reply = acquire(ask) elseif request.look then reply = report() end
if not request.look or gave_up then save() end
reply[#reply + 1] = hit
reply[#reply + 1] = info()
return reply
