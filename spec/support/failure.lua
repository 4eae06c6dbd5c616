--- The message of the failure, of busted's or an error, that `fn` has to end with.
---@param fn function
---@return string
return function(fn)
  local ok, err = pcall(fn)
  if ok then error("expected a failure, and there was none", 2) end
  return type(err) == "table" and tostring(err.message) or tostring(err)
end
