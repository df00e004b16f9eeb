-- One ask of one bucket: the arithmetic of Decide in whole microseconds, which
-- a double holds exactly, and the count of the replicas that share the bucket.
-- KEYS[1] bucket; ARGV interval, burst, want, least, need, debt, life,
-- replica.
-- The value is "tat replica=asked replica=asked …".
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local want, least, need = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local debt, life, replica = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]

local tat, active, asked = 0, 1, ''
local value = redis.call('GET', KEYS[1])
if value then
  tat = tonumber(string.match(value, '^%d+')) or 0
  if life > 0 then
    for id, at in string.gmatch(value, ' (%x+)=(%d+)') do
      if id ~= replica and math.abs(now - at) < life and active < 64 then
        active = active + 1
        asked = asked .. ' ' .. id .. '=' .. at
      end
    end
  end
end

local full = now + interval * burst
tat = math.min(math.max(tat, now), full)
tat = math.min(tat + debt * interval, full)
local free = math.floor((full - tat) / interval)
local tokens, retry = 0, 0
if want > 0 and free >= least then
  tokens = math.min(want, free)
  if life > 0 then
    tokens = math.min(tokens, math.max(least, need, math.floor(free / (2 * active))))
  end
  tat = tat + tokens * interval
elseif want > 0 then
  retry = least * interval - (full - tat)
end

if life > 0 then
  asked = asked .. ' ' .. replica .. '=' .. string.format('%.0f', now)
end
if life > 0 or tokens > 0 or debt > 0 then
  local keep = math.ceil((tat - now + life) / 1000) + 1
  redis.call('SET', KEYS[1], string.format('%.0f', tat) .. asked, 'PX', string.format('%.0f', keep))
end
return {tokens, free - tokens, retry, tat - now, now, active}
