--- What differs between two lists of frames. Internal.
local M = {}

-- Past so many comparisons the frames are compared one by one, as they stand.
local CELLS_MAX = 250000

local function same_ends(a, b, equal)
  local head, tail = 0, 0
  local n = math.min(#a, #b)
  while head < n and equal(a[head + 1], b[head + 1]) do head = head + 1 end
  while tail < n - head and equal(a[#a - tail], b[#b - tail]) do tail = tail + 1 end
  return head, tail
end

-- lengths[i][j]: of the longest common list of what follows a[i] and b[j].
local function common(a, b, head, rows, columns, equal)
  local lengths = {}
  for i = rows + 1, 1, -1 do
    local row = {}
    lengths[i] = row
    for j = columns + 1, 1, -1 do
      if i > rows or j > columns then
        row[j] = 0
      elseif equal(a[head + i], b[head + j]) then
        row[j] = lengths[i + 1][j + 1] + 1
      else
        row[j] = math.max(lengths[i + 1][j], row[j + 1])
      end
    end
  end
  return lengths
end

local function align(steps, a, b, head, rows, columns, equal)
  local lengths = rows * columns <= CELLS_MAX and common(a, b, head, rows, columns, equal)
  local i, j = 1, 1
  while i <= rows or j <= columns do
    if i <= rows and j <= columns and equal(a[head + i], b[head + j]) then
      steps[#steps + 1] = { kind = "same", a = a[head + i], b = b[head + j] }
      i, j = i + 1, j + 1
    elseif j > columns or (i <= rows and (not lengths or lengths[i + 1][j] >= lengths[i][j + 1])) then
      steps[#steps + 1] = { kind = "lacking", a = a[head + i] }
      i = i + 1
      if not lengths and j <= columns then
        steps[#steps + 1] = { kind = "added", b = b[head + j] }
        j = j + 1
      end
    else
      steps[#steps + 1] = { kind = "added", b = b[head + j] }
      j = j + 1
    end
  end
end

--- How to get from one list to the other, with few steps.
---@param a any[]
---@param b any[]
---@param equal fun(a, b): boolean
---@return { kind: "same"|"lacking"|"added", a: any, b: any }[]
function M.lists(a, b, equal)
  local steps = {}
  local head, tail = same_ends(a, b, equal)
  for i = 1, head do steps[i] = { kind = "same", a = a[i], b = b[i] } end
  align(steps, a, b, head, #a - head - tail, #b - head - tail, equal)
  for i = tail - 1, 0, -1 do steps[#steps + 1] = { kind = "same", a = a[#a - i], b = b[#b - i] } end
  return steps
end

return M
