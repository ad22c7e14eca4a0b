-- Rate limits of a batch of questions, decided as seawall.guard.throttle.decide does, in whole microseconds.
--
-- KEYS: the distinct keys of the batch. ARGV, per key: interval_us, window_us, ahead_us (by how much the asker's own
-- number lies ahead of its clock: what it let through while it couldn't ask). Then per question: how many keys it has,
-- and which (1-based). One more passes when all keys of its question allow it, and only then it is counted, under all.
--
-- Answers, per question: 1 or 0, then for each of its keys how far its number lay ahead before, in microseconds.
-- Clocks of askers need not agree: only differences cross the wire. Cost: a GET and a SET per key.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local count = #KEYS
local interval, window, tat, kept = {}, {}, {}, {}

for i = 1, count do
  local at = 3 * (i - 1)
  interval[i] = tonumber(ARGV[at + 1])
  window[i] = tonumber(ARGV[at + 2])
  kept[i] = tonumber(redis.call('GET', KEYS[i]) or 0) or 0
  tat[i] = math.min(math.max(kept[i], now + tonumber(ARGV[at + 3])), now + window[i])
end

local answer = {}
local at = 3 * count + 1
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  local allowed = 1
  local flag = #answer + 1
  answer[flag] = 0
  for j = at + 1, last do
    local i = tonumber(ARGV[j])
    if tat[i] + interval[i] - now > window[i] then allowed = 0 end
    answer[#answer + 1] = tat[i] - now
  end
  if allowed == 1 then
    answer[flag] = 1
    for j = at + 1, last do
      local i = tonumber(ARGV[j])
      tat[i] = tat[i] + interval[i]
    end
  end
  at = last + 1
end

for i = 1, count do
  -- A number that isn't ahead says nothing, and one that is says nothing once it was reached: then it may go.
  if tat[i] > now and tat[i] ~= kept[i] then
    redis.call('SET', KEYS[i], string.format('%.0f', tat[i]), 'PX', math.ceil((tat[i] - now) / 1000))
  end
end
return answer
