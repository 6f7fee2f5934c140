-- What wrk sends and how it reports. Arguments: the file with the request, the number of routes, and a file of tokens.
-- In the request, {n} stands for a number that is new with each request (16 hex digits) and {route} for the number of
-- a route, another one each time, and {token} for one of the tokens in turn. A request without any is sent as it is,
-- without calling Lua again.

local function split(text)
  local parts, slots, from = {}, { n = {}, route = {}, token = {} }, 1
  while true do
    local first, last, name = text:find("{(%l+)}", from)
    if not first then break end
    parts[#parts + 1] = text:sub(from, first - 1)
    parts[#parts + 1] = ""
    table.insert(slots[name], #parts)
    from = last + 1
  end
  parts[#parts + 1] = text:sub(from)
  return parts, slots
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local text = file:read("*a")
  file:close()
  local routes = tonumber(args[2])
  local tokens = {}
  if args[3] then
    for line in io.lines(args[3]) do tokens[#tokens + 1] = line end
  end
  local parts, slots = split(text)
  if #parts == 1 then
    wrk.format = function() return text end
    return
  end
  math.randomseed(os.time())
  local count = math.random(0, 2 ^ 31)
  function request()
    count = count + 1
    local number = string.format("%016x", count)
    for _, slot in ipairs(slots.n) do parts[slot] = number end
    local route = string.format("%04d", count * 7919 % routes)
    for _, slot in ipairs(slots.route) do parts[slot] = route end
    for _, slot in ipairs(slots.token) do parts[slot] = tokens[count % #tokens + 1] end
    return table.concat(parts)
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "bytes": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "refused": %d, "failed": %d}\n',
    summary.requests, summary.bytes, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
