-- What Redis does for Fanwire, each in one step. Loaded as a library of functions, or run as scripts where those are not
-- permitted. The number in the library's name changes with every change here and in presence/functions.lua.

-- The incarnation of the server that executes this. A library keeps it until the server restarts.
local run = nil
local function incarnation()
  run = run or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  return run
end

local function digits(number)
  return string.format('%.0f', number)
end

-- The field `stamp` of an envelope (proto/fanwire/cluster/v1), to be appended to it.
local function stamp(epoch, offset, prev)
  local body = '\10' .. string.char(#epoch) .. epoch .. '\17' .. struct.pack('<I8', offset) .. '\25' .. struct.pack('<I8', prev)
  return '\122' .. string.char(#body) .. body
end

-- The epoch and the top of a stream, which begins to exist if it does not; and the incarnation that wrote last.
local function state(meta, stream, new_epoch, ttl)
  local known = redis.call('HMGET', meta, 'e', 's', 'r', 'x')
  if known[1] then
    return known[1], tonumber(known[2]), known[3], tonumber(known[4])
  end
  redis.call('DEL', stream)
  redis.call('HSET', meta, 'e', new_epoch, 's', 0, 'r', incarnation())
  redis.call('PEXPIRE', meta, ttl)
  return new_epoch, 0, incarnation(), 0
end

-- What stands against a publication: 'conflict', if the stream does not end where it must; 'outdated', if it has that version.
local function objection(meta, epoch, top, condition, number, word)
  if condition == 'at' then
    if digits(top) ~= number or (word ~= '' and word ~= epoch) then
      return 'conflict'
    end
  elseif condition == 'below' then
    local known = redis.call('HMGET', meta, 'v', 'w')
    -- Compared as text, both of one length: numbers here are exact up to 2^53 only.
    if known[1] and known[2] == word and known[1] >= number then
      return 'outdated'
    end
  end
end

-- Applies one publication of a channel that keeps them.
local function append(meta, stream, common, envelope, time, condition, number, word)
  local epoch, prev, writer, extended = state(meta, stream, common[5], common[6])
  local against = objection(meta, epoch, prev, condition, number, word)
  if against then
    return digits(prev) .. ' ' .. epoch .. ' ' .. against
  end
  local offset = prev + 1
  if writer ~= incarnation() then
    -- What the last incarnation wrote may be lost here and known elsewhere: never mint its offsets again.
    local now = redis.call('TIME')
    offset = math.max(offset, (now[1] * 1000 + math.floor(now[2] / 1000)) * 2048)
  end
  local stamped = envelope .. stamp(epoch, offset, prev)
  redis.call('XADD', stream, 'MAXLEN', '=', common[3], digits(offset) .. '-0', 'd', stamped)
  redis.call('PEXPIRE', stream, common[4])
  redis.call('HSET', meta, 's', digits(offset), 'r', incarnation())
  if condition == 'below' then
    redis.call('HSET', meta, 'v', number, 'w', word)
  end
  -- Once an hour is enough for a position that lives for days.
  if math.abs(tonumber(time) - (extended or 0)) > 3600000 then
    redis.call('HSET', meta, 'x', time)
    redis.call('PEXPIRE', meta, common[6])
  end
  redis.call(common[2], common[1], stamped)
  return digits(offset) .. ' ' .. epoch
end

-- Applies publications of one channel, in their order; answers for each where it stands.
-- KEYS: meta, stream, and one for each of them with an idempotency key.
-- ARGV: pub/sub channel, PUBLISH or SPUBLISH, size and ttl (ms) of the history, a new epoch, ttl of a position, ttl of a result;
-- then for each: envelope, the publisher's time (ms), 'kept' or '', 'once' or '', and what must be true of the stream: '', 'at'
-- with offset and epoch, or 'below' with a version of 20 digits and its epoch.
local function publish(keys, args)
  local answers, key = {}, 2
  for first = 8, #args, 7 do
    local envelope, result, answer = args[first], nil, nil
    if args[first + 3] == 'once' then
      key = key + 1
      result = keys[key]
      answer = redis.call('GET', result)
    end
    if not answer then
      if args[first + 2] == 'kept' then
        answer = append(keys[1], keys[2], args, envelope, args[first + 1], args[first + 4], args[first + 5], args[first + 6])
      else
        answer = ''
        redis.call(args[2], args[1], envelope)
      end
      -- A conflict is no outcome: whoever looks where the stream ends may try again.
      if result and not string.find(answer, 'conflict', 1, true) then
        redis.call('SET', result, answer, 'PX', args[7])
      end
    end
    answers[#answers + 1] = answer
  end
  return answers
end

-- KEYS: meta, stream. ARGV: a new epoch, ttl of a position, first and last id, limit, XRANGE or XREVRANGE.
local function history(keys, args)
  local epoch, top = state(keys[1], keys[2], args[1], args[2])
  local bodies = {}
  if args[5] ~= '0' then
    for index, entry in ipairs(redis.call(args[6], keys[2], args[3], args[4], 'COUNT', args[5])) do
      bodies[index] = entry[2][2]
    end
  end
  return { epoch, digits(top), bodies }
end
