-- Presence, in the slot of a channel: `fence` says for each node under which seal it may change anything, `index` lists what
-- a node answers for, `members` and `users` who is listed in a channel, `joined` who is announced there per user.
--
-- An entry of an index is `channel{client` -> 'l' or '-' (listed), 'c', 'u' or '-' (announced per connection, per user), and
-- who it is, unless that stands in `members`.

-- A node's seal ends with the incarnation that made it: what a restart has lost is found before anything else changes. The
-- members of a condemned node may be changed by anyone.
local function is_sealed(fence, node, seal)
  return redis.call('HGET', fence, node) == seal and (seal == '-' or string.match(seal, '%x+$') == incarnation())
end

local function count_out(users, user)
  local left = redis.call('HINCRBY', users, user, -1)
  if left <= 0 then
    redis.call('HDEL', users, user)
  end
  return left <= 0
end

-- KEYS: fence, index, members, users, joined.
-- ARGV: node, seal, entry, client, user, who it is, role ('l', 'c' or 'u'), pub/sub channel, join (empty: not announced),
-- PUBLISH or SPUBLISH.
-- Answers 0 if it was so already, 2 if it is the user's first connection, 1 if not; -1 if the seal is no good.
local function presence_add(keys, args)
  local fence, index, members, users, joined = keys[1], keys[2], keys[3], keys[4], keys[5]
  local entry, client, user, member, role = args[3], args[4], args[5], args[6], args[7]
  if not is_sealed(fence, args[1], args[2]) then
    return -1
  end
  local known = redis.call('HGET', index, entry) or '--'
  local listed, announced = string.sub(known, 1, 1), string.sub(known, 2, 2)
  if role == 'l' then
    redis.call('HSET', members, client, member)
    if listed == 'l' then
      return 0
    end
    redis.call('HSET', index, entry, 'l' .. announced)
    return redis.call('HINCRBY', users, user, 1) == 1 and 2 or 1
  end
  if announced ~= '-' then
    return 0
  end
  redis.call('HSET', index, entry, listed .. role .. (listed == 'l' and '' or member))
  local first = role == 'u' and redis.call('HINCRBY', joined, user, 1) == 1
  if (first or role == 'c') and args[9] ~= '' then
    redis.call(args[10], args[8], args[9])
  end
  return first and 2 or 1
end

-- KEYS: as above. ARGV: node, seal, entry, client, user, pub/sub channel, leave (empty: not announced),
-- PUBLISH or SPUBLISH. Answers as above.
local function presence_remove(keys, args)
  local fence, index, members, users, joined = keys[1], keys[2], keys[3], keys[4], keys[5]
  local entry, client, user = args[3], args[4], args[5]
  if not is_sealed(fence, args[1], args[2]) then
    return -1
  end
  local known = redis.call('HGET', index, entry)
  if not known then
    return 0
  end
  redis.call('HDEL', index, entry)
  local last = false
  if string.sub(known, 1, 1) == 'l' and redis.call('HDEL', members, client) == 1 then
    last = count_out(users, user)
  end
  local announced = string.sub(known, 2, 2)
  local parted = announced == 'u' and count_out(joined, user)
  if (parted or announced == 'c') and args[7] ~= '' then
    redis.call(args[8], args[6], args[7])
  end
  return (last or parted) and 2 or 1
end

-- KEYS: fence, mark of the condemned. ARGV: node, epoch, number, all of that node.
-- Gives a node a new seal; nothing under an older one happens any more. Answers with it, whether the node was known, and
-- whether it was condemned before; 'condemned' if the epoch is over.
local function presence_enter(keys, args)
  local condemned = redis.call('GET', keys[2])
  if condemned and tonumber(condemned) >= tonumber(args[2]) then
    return 'condemned'
  end
  local known = redis.call('HEXISTS', keys[1], args[1])
  local seal = args[2] .. '.' .. args[3] .. '.' .. incarnation()
  redis.call('HSET', keys[1], args[1], seal)
  return { seal, known, condemned and 1 or 0 }
end

-- KEYS: fence. ARGV: node, seal. Answers 1 if the seal is good.
local function presence_check(keys, args)
  return is_sealed(keys[1], args[1], args[2]) and 1 or 0
end

-- KEYS: fence, mark of the condemned, index. ARGV: node, epoch, ttl of the mark, limit.
-- Takes a dead node's seal away; answers with some of what it answered for, nothing if all of it is removed, false if the
-- node has come back under a later epoch.
local function presence_condemn(keys, args)
  local fence, mark, index, node = keys[1], keys[2], keys[3], args[1]
  local seal = redis.call('HGET', fence, node)
  if seal and seal ~= '-' and tonumber(string.match(seal, '^%d+')) > tonumber(args[2]) then
    return false
  end
  redis.call('SET', mark, args[2], 'PX', args[3])
  if redis.call('EXISTS', index) == 0 then
    redis.call('HDEL', fence, node)
    return {}
  end
  redis.call('HSET', fence, node, '-')
  return redis.call('HRANDFIELD', index, args[4], 'WITHVALUES')
end

-- KEYS: the signs of life. ARGV: node, epoch, the next sign, 'anew' for the first one of an epoch.
-- Answers with the signs of all nodes; false if the node's epoch is over.
local function presence_renew(keys, args)
  local sign = redis.call('HGET', keys[1], args[1])
  if args[4] ~= 'anew' and (not sign or string.match(sign, '^%d+') ~= args[2]) then
    return false
  end
  redis.call('HSET', keys[1], args[1], args[3])
  return redis.call('HGETALL', keys[1])
end

-- KEYS: the signs of life. ARGV: node, the sign seen, what replaces it (empty: nothing). Answers 1 if it was still there.
local function presence_claim(keys, args)
  if redis.call('HGET', keys[1], args[1]) ~= args[2] then
    return 0
  end
  if args[3] == '' then
    redis.call('HDEL', keys[1], args[1])
  else
    redis.call('HSET', keys[1], args[1], args[3])
  end
  return 1
end
