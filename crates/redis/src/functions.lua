-- What Redis does for Fanwire, each in one step. Loaded as a library of functions, or run as scripts where those are not
-- permitted. The number in the library's name changes with every change here and in presence/functions.lua.

-- The incarnation of the server that executes this. A library keeps it until the server restarts.
local run = nil
local function incarnation()
  run = run or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  return run
end

local function digits(number)
  -- The first is the cheaper one, and not exact beyond this on every machine.
  return string.format(number < 2147483648 and '%d' or '%.0f', number)
end

-- The field `stamp` of an envelope (proto/fanwire/cluster/v1), to be appended to it.
local function stamp(epoch, offset, prev)
  return struct.pack('<BBBBc0BI8BI8', 122, #epoch + 20, 10, #epoch, epoch, 17, offset, 25, prev)
end

-- Where a stream stands, which begins to exist if it does not: its epoch and top, the incarnation that wrote last, when its
-- position was prolonged last, and how many publications it keeps.
local function state(meta, stream, new_epoch, ttl)
  local known = redis.call('HMGET', meta, 'e', 's', 'r', 'x', 'n')
  if known[1] then
    return { epoch = known[1], top = tonumber(known[2]), writer = known[3], prolonged = tonumber(known[4]), size = known[5] }
  end
  redis.call('DEL', stream)
  redis.call('HSET', meta, 'e', new_epoch, 's', 0, 'r', incarnation())
  redis.call('PEXPIRE', meta, ttl)
  return { epoch = new_epoch, top = 0, writer = incarnation() }
end

-- What stands against a publication: 'conflict', if the stream does not end where it must; 'outdated', if it has that version.
local function objection(meta, at, condition, number, word)
  if condition == 'at' then
    if digits(at.top) ~= number or (word ~= '' and word ~= at.epoch) then
      return 'conflict'
    end
  elseif condition == 'below' then
    if not at.version then
      local known = redis.call('HMGET', meta, 'v', 'w')
      at.version, at.of = known[1] or '', known[2]
    end
    -- Compared as text, both of one length: numbers here are exact up to 2^53 only.
    if at.of == word and at.version >= number then
      return 'outdated'
    end
    at.version, at.of, at.versioned = number, word, true
  end
end

-- Appends an envelope to a stream that it may be appended to; gives it back with its stamp, and says where it stands.
-- What is too many for the history leaves in whole nodes of the stream: to be exact here would cost Redis a tenth of its time.
local function append(stream, at, size, envelope)
  local prev = at.top
  local offset = prev + 1
  if at.writer ~= incarnation() then
    -- What the last incarnation wrote may be lost here and known elsewhere: never mint its offsets again.
    local now = redis.call('TIME')
    offset = math.max(offset, (now[1] * 1000 + math.floor(now[2] / 1000)) * 2048)
    at.writer = run
  end
  at.top, at.id = offset, digits(offset)
  local stamped = envelope .. stamp(at.epoch, offset, prev)
  redis.call('XADD', stream, 'MAXLEN', '~', size, at.id .. '-0', 'd', stamped)
  return stamped, at.id .. ' ' .. at.epoch
end

-- Notes where a stream stands that was appended to.
local function settle(meta, stream, at, common)
  redis.call('HSET', meta, 's', at.id, 'r', run)
  redis.call('PEXPIRE', stream, common[4])
  if at.size ~= common[3] then
    redis.call('HSET', meta, 'n', common[3])
  end
  if at.versioned then
    redis.call('HSET', meta, 'v', at.version, 'w', at.of)
  end
  -- Once an hour is enough for a position that lives for days.
  if math.abs(tonumber(common[8]) - (at.prolonged or 0)) > 3600000 then
    redis.call('HSET', meta, 'x', common[8])
    redis.call('PEXPIRE', meta, common[6])
  end
end

-- Applies publications of one channel, in their order; answers for each where it stands.
-- KEYS: meta, stream, and one for each of them with an idempotency key.
-- ARGV: pub/sub channel, PUBLISH or SPUBLISH, size and ttl (ms) of the history, a new epoch, ttl of a position, ttl of a result,
-- the publisher's time (ms); then for each: envelope, and how: words of 'kept', 'once', 'at', 'below', in this order and with a
-- space behind each. For what must be true of the stream two more follow: behind 'at' offset and epoch, behind 'below' a version
-- of 20 digits and its epoch.
local function publish(keys, args)
  local meta, stream = keys[1], keys[2]
  local answers, envelopes = {}, {}
  local at = nil
  local key, index, count = 2, 9, #args
  while index < count do
    local envelope, how = args[index], args[index + 1]
    index = index + 2
    local kept, once, condition, number, word = how == 'kept ', false, nil, nil, nil
    if not kept and how ~= '' then
      kept, once = string.find(how, 'kept ', 1, true), string.find(how, 'once ', 1, true)
      condition = string.match(how, '(at) ') or string.match(how, '(below) ')
      if condition then
        number, word = args[index], args[index + 1]
        index = index + 2
      end
    end
    local result, answer = nil, nil
    if once then
      key = key + 1
      result = keys[key]
      answer = redis.call('GET', result)
    end
    if not answer then
      local against = nil
      if kept then
        at = at or state(meta, stream, args[5], args[6])
        against = objection(meta, at, condition, number, word)
        if against then
          answer = digits(at.top) .. ' ' .. at.epoch .. ' ' .. against
        else
          envelope, answer = append(stream, at, args[3], envelope)
        end
      else
        answer = ''
      end
      if not against then
        envelopes[#envelopes + 1] = envelope
      end
      -- A conflict is no outcome: whoever looks where the stream ends may try again.
      if result and against ~= 'conflict' then
        redis.call('SET', result, answer, 'PX', args[7])
      end
    end
    answers[#answers + 1] = answer
  end
  if at and at.id then
    settle(meta, stream, at, args)
  end
  -- Last, for it may be refused: then the stream stands where it says.
  for _, envelope in ipairs(envelopes) do
    redis.call(args[2], args[1], envelope)
  end
  return answers
end

-- KEYS: meta, stream. ARGV: a new epoch, ttl of a position, first and last id, limit, XRANGE or XREVRANGE.
local function history(keys, args)
  local at = state(keys[1], keys[2], args[1], args[2])
  local bodies = {}
  if args[5] ~= '0' then
    if at.size then
      redis.call('XTRIM', keys[2], 'MAXLEN', '=', at.size)
    end
    for index, entry in ipairs(redis.call(args[6], keys[2], args[3], args[4], 'COUNT', args[5])) do
      bodies[index] = entry[2][2]
    end
  end
  return { at.epoch, digits(at.top), bodies }
end
