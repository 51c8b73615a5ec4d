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

-- KEYS: meta, stream, optionally the one of an idempotency key.
-- ARGV: pub/sub channel, envelope, size and ttl (ms) of the history, a new epoch, ttl of a position, ttl of a result, the
-- publisher's time (ms), PUBLISH or SPUBLISH.
local function publish(keys, args)
  local meta, stream, result = keys[1], keys[2], keys[3]
  local known = result and redis.call('GET', result)
  if known then
    return known
  end
  local epoch, prev, writer, extended = state(meta, stream, args[5], args[6])
  local offset = prev + 1
  if writer ~= incarnation() then
    -- What the last incarnation wrote may be lost here and known elsewhere: never mint its offsets again.
    local now = redis.call('TIME')
    offset = math.max(offset, (now[1] * 1000 + math.floor(now[2] / 1000)) * 2048)
  end
  local stamped = args[2] .. stamp(epoch, offset, prev)
  redis.call('XADD', stream, 'MAXLEN', '=', args[3], digits(offset) .. '-0', 'd', stamped)
  redis.call('PEXPIRE', stream, args[4])
  redis.call('HSET', meta, 's', digits(offset), 'r', incarnation())
  -- Once an hour is enough for a position that lives for days.
  if math.abs(tonumber(args[8]) - (extended or 0)) > 3600000 then
    redis.call('HSET', meta, 'x', args[8])
    redis.call('PEXPIRE', meta, args[6])
  end
  local answer = digits(offset) .. ' ' .. epoch
  if result then
    redis.call('SET', result, answer, 'PX', args[7])
  end
  redis.call(args[9], args[1], stamped)
  return answer
end

-- KEYS: the one of an idempotency key. ARGV: pub/sub channel, envelope, ttl of a result, PUBLISH or SPUBLISH.
local function publish_once(keys, args)
  if redis.call('SET', keys[1], '', 'NX', 'PX', args[3]) then
    redis.call(args[4], args[1], args[2])
  end
  return ''
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
