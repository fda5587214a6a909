#!lua name=tidegate_VERSION
-- The atomic step of the delivery protocol. All keys of one source partition share a hash tag, so
-- a call touches one slot. Everything is checked before anything is written: a Redis Function that
-- stops half way is not rolled back.

-- keys: meta. args: owner, format version. Returns the whole meta hash.
local function acquire(keys, args)
  local version = redis.call('HGET', keys[1], 'version')
  if version and version ~= args[2] then
    return redis.error_reply('VERSION ' .. version)
  end
  -- New, or emptied: the histories are to be built from the log.
  if redis.call('HINCRBY', keys[1], 'epoch', 1) == 1 then redis.call('HSET', keys[1], 'building', 1) end
  redis.call('HSET', keys[1], 'owner', args[1], 'version', args[2])
  return redis.call('HGETALL', keys[1])
end

-- keys: meta. args: epoch, owner. The histories hold what the log held when they were begun.
local function complete(keys, args)
  local held = redis.call('HMGET', keys[1], 'epoch', 'owner')
  if held[1] ~= args[1] or held[2] ~= args[2] then return 'FENCED' end
  redis.call('HDEL', keys[1], 'building')
  return 'APPLIED'
end

-- Calls a command for many keys at once: of values, how many go into one call. Lua's stack takes 8,000.
local AT_ONCE = 2000

local function call_for_all(command, first, values)
  for from = 1, #values, AT_ONCE do
    local upto = math.min(from + AT_ONCE - 1, #values)
    if first then
      redis.call(command, first, unpack(values, from, upto))
    else
      redis.call(command, unpack(values, from, upto))
    end
  end
end

-- keys: meta, index, then those of the operations in their order.
-- args: epoch, owner, source, expected next ('' for none), next, watermark, swept day, most values of a list,
-- which set of models scores what is next ('' for as before), how many operations of each kind, and the
-- operations, kind by kind:
--   appended: length header body     1 key   append to a history of exactly this length, replacing its header
--   replaced: length value packed    2 keys  replace a history of this length; of the value's own when tried
--                                            again; and its packed block, '' for none
--   indexed: score member                    into the index of customers by their newest event
--   lists: n value*n                 1 key   push to a list, keep the newest
--   set: value                       1 key   set
--   extended: value                  1 key   append
--   deleted:                         1 key   delete
--   erased: member name until        1 key   out of that index and into the hash of erased customers
local function apply(keys, args)
  local meta = keys[1]
  local epoch, owner = args[1], args[2]
  local held = redis.call('HMGET', meta, 'epoch', 'owner', 'watermark', 'swept')
  if not held[1] then return 'ROLLED_BACK' end
  if held[1] ~= epoch or held[2] ~= owner then
    -- A smaller epoch than ours can only be a store that went back in time.
    if tonumber(held[1]) < tonumber(epoch) then return 'ROLLED_BACK' end
    return 'FENCED'
  end
  local source = args[3]
  local stored_next = redis.call('HGET', meta, 'next:' .. source) or ''
  if stored_next == args[5] and stored_next ~= args[4] then return 'ALREADY_APPLIED' end
  if stored_next ~= args[4] then return 'ROLLED_BACK' end
  local most = tonumber(args[8])
  local appended, replaced, indexed, lists, set, extended, deleted, erased = unpack(args, 10, 17)
  local k, i = 3, 18
  for _ = 1, appended do
    if redis.call('STRLEN', keys[k]) ~= tonumber(args[i]) then return redis.error_reply('HISTORY ' .. keys[k]) end
    k, i = k + 1, i + 3
  end
  for _ = 1, replaced do
    local stored = redis.call('STRLEN', keys[k])
    -- Sweeps move no offset, so one that is tried again finds its own length.
    if stored ~= tonumber(args[i]) and stored ~= #args[i + 1] then
      return redis.error_reply('HISTORY ' .. keys[k])
    end
    k, i = k + 2, i + 3
  end
  k, i = 3, 18
  for _ = 1, appended do
    if args[i] == '0' then
      redis.call('SET', keys[k], args[i + 1] .. args[i + 2])
    else
      redis.call('SETRANGE', keys[k], 0, args[i + 1])
      if args[i + 2] ~= '' then redis.call('APPEND', keys[k], args[i + 2]) end
    end
    k, i = k + 1, i + 3
  end
  for _ = 1, replaced do
    redis.call('SET', keys[k], args[i + 1])
    if args[i + 2] == '' then
      redis.call('DEL', keys[k + 1])
    else
      redis.call('SET', keys[k + 1], args[i + 2])
    end
    k, i = k + 2, i + 3
  end
  local values = {}
  for v = 1, 2 * indexed do values[v] = args[i + v - 1] end
  i = i + 2 * indexed
  call_for_all('ZADD', keys[2], values)
  for _ = 1, lists do
    local n = tonumber(args[i])
    if redis.call('RPUSH', keys[k], unpack(args, i + 1, i + n)) > most then
      redis.call('LTRIM', keys[k], -most, -1)
    end
    k, i = k + 1, i + 1 + n
  end
  values = {}
  for v = 1, set do
    values[2 * v - 1], values[2 * v] = keys[k], args[i]
    k, i = k + 1, i + 1
  end
  call_for_all('MSET', nil, values)
  for _ = 1, extended do
    redis.call('APPEND', keys[k], args[i])
    k, i = k + 1, i + 1
  end
  for _ = 1, deleted do
    redis.call('DEL', keys[k])
    k = k + 1
  end
  for _ = 1, erased do
    redis.call('ZREM', keys[2], args[i])
    local before = redis.call('HGET', keys[k], args[i + 1])
    if tonumber(args[i + 2]) > tonumber(before or '-1') then redis.call('HSET', keys[k], args[i + 1], args[i + 2]) end
    k, i = k + 1, i + 3
  end
  if args[9] ~= '' then redis.call('HSET', meta, 'models', args[9]) end
  redis.call('HSET', meta, 'next:' .. source, args[5])
  if tonumber(args[6]) > tonumber(held[3] or '0') then redis.call('HSET', meta, 'watermark', args[6]) end
  if tonumber(args[7]) > tonumber(held[4] or '-1') then redis.call('HSET', meta, 'swept', args[7]) end
  return 'APPLIED'
end

-- The program puts a digest of this file for _VERSION.
redis.register_function('tidegate_acquire_VERSION', acquire)
redis.register_function('tidegate_complete_VERSION', complete)
redis.register_function('tidegate_apply_VERSION', apply)
