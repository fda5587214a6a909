-- Generic cell rate algorithm. KEYS: the cell. ARGV: microseconds per request, most at once.
-- The server's clock, so that all processes share one. Counted from 2026, so that doubles keep
-- fractions of a microsecond. Returns: taken (1, 0), left, us until the next would be taken, us until full.
local t = redis.call('TIME')
local now = (tonumber(t[1]) - 1767225600) * 1000000 + tonumber(t[2])
local interval, capacity = tonumber(ARGV[1]), tonumber(ARGV[2])
local stored = tonumber(redis.call('GET', KEYS[1]) or now)
-- A clock that was set back must not lock a client out for as long.
local full = math.min(math.max(stored, now), now + capacity * interval)
local after = full + interval
local allowed_at = after - capacity * interval
if now < allowed_at then
  return { 0, 0, math.ceil(allowed_at - now), math.ceil(full - now) }
end
redis.call('SET', KEYS[1], string.format('%.3f', after), 'PX', math.ceil((after - now) / 1000) + 1)
return { 1, math.floor((now - allowed_at) / interval), 0, math.ceil(after - now) }
