--- Fails unless `part` occurs in `text`.
---@param part string
---@param text string?
return function(part, text)
  if not (text and text:find(part, 1, true)) then error(("no %q in: %s"):format(part, tostring(text)), 2) end
end
