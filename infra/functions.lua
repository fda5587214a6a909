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
  redis.call('HINCRBY', keys[1], 'epoch', 1)
  redis.call('HSET', keys[1], 'owner', args[1], 'version', args[2])
  return redis.call('HGETALL', keys[1])
end

-- Number of arguments of each operation, its letter included; -1: counted in its third argument.
local WIDTH = { A = 5, R = 4, S = 3, D = 2, Z = 3, P = 3, E = 5, L = -1, M = 2 }

local function width(args, i)
  local w = WIDTH[args[i]]
  if w == -1 then return 4 + tonumber(args[i + 3]) end
  return w
end

-- keys: meta, index, then the keys that operations name by number.
-- args: epoch, owner, source, expected next ('' for none), next, watermark, swept day, operations...
--   A key length header body   append to a history of exactly this length, replacing its header
--   R key length value         replace a history of this length; of the value's own when tried again
--   S key value                set
--   P key value                append
--   D key                      delete
--   L key max n value*n        push to a list, keep the newest max
--   Z score member             into the index of customers by their newest event
--   E key member name until    out of that index and into the hash of erased customers
--   M models                   which set of models scores what is next
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
  local i = 8
  while i <= #args do
    local op = args[i]
    if op == 'A' or op == 'R' then
      local stored = redis.call('STRLEN', keys[tonumber(args[i + 1])])
      -- Sweeps move no offset, so one that is tried again finds its own length.
      local again = op == 'R' and stored == #args[i + 3]
      if stored ~= tonumber(args[i + 2]) and not again then
        return redis.error_reply('HISTORY ' .. keys[tonumber(args[i + 1])])
      end
    end
    i = i + width(args, i)
  end
  i = 8
  while i <= #args do
    local op = args[i]
    if op == 'A' then
      local key = keys[tonumber(args[i + 1])]
      if args[i + 2] == '0' then
        redis.call('SET', key, args[i + 3] .. args[i + 4])
      else
        redis.call('SETRANGE', key, 0, args[i + 3])
        if #args[i + 4] > 0 then redis.call('APPEND', key, args[i + 4]) end
      end
    elseif op == 'R' then
      redis.call('SET', keys[tonumber(args[i + 1])], args[i + 3])
    elseif op == 'S' then
      redis.call('SET', keys[tonumber(args[i + 1])], args[i + 2])
    elseif op == 'P' then
      redis.call('APPEND', keys[tonumber(args[i + 1])], args[i + 2])
    elseif op == 'D' then
      redis.call('DEL', keys[tonumber(args[i + 1])])
    elseif op == 'L' then
      local key = keys[tonumber(args[i + 1])]
      for v = i + 4, i + 3 + tonumber(args[i + 3]) do redis.call('RPUSH', key, args[v]) end
      redis.call('LTRIM', key, -tonumber(args[i + 2]), -1)
    elseif op == 'Z' then
      redis.call('ZADD', keys[2], args[i + 1], args[i + 2])
    elseif op == 'M' then
      redis.call('HSET', meta, 'models', args[i + 1])
    elseif op == 'E' then
      local erased = keys[tonumber(args[i + 1])]
      redis.call('ZREM', keys[2], args[i + 2])
      local before = redis.call('HGET', erased, args[i + 3])
      if tonumber(args[i + 4]) > tonumber(before or '-1') then redis.call('HSET', erased, args[i + 3], args[i + 4]) end
    end
    i = i + width(args, i)
  end
  redis.call('HSET', meta, 'next:' .. source, args[5])
  if tonumber(args[6]) > tonumber(held[3] or '0') then redis.call('HSET', meta, 'watermark', args[6]) end
  if tonumber(args[7]) > tonumber(held[4] or '-1') then redis.call('HSET', meta, 'swept', args[7]) end
  return 'APPLIED'
end

-- The program puts a digest of this file for _VERSION.
redis.register_function('tidegate_acquire_VERSION', acquire)
redis.register_function('tidegate_apply_VERSION', apply)
