--- What was meant by names that other programs have: tables of synonyms, and words that are the same in another order.
--- Edit distance knows neither (`idle_timeout` is far from `timeout.idle`).
local M = {}

-- "onClose", "on_close" and "ON-CLOSE" are one.
local function fold(name) return (name:lower():gsub("[^%w]", "")) end

-- From lines "ours: theirs theirs": theirs, folded → ours.
local function table_of(text)
  local found = {}
  for ours, all in text:gmatch "([%w_.]+):([^\n]*)" do
    for name in all:gmatch "%S+" do found[fold(name)] = ours end
  end
  return found
end

-- Node, Netty, Twisted, asyncio, Skynet, OTP, Phoenix, Go, LÖVE …
local METHODS = table_of [[
proceed: data on_data receive received on_receive recv on_recv read on_read message on_message line on_line
proceed: line_received
proceed: data_received frame on_frame packet on_packet handle handler handle_data handle_message dispatch channel_read
proceed: request on_request process run call command on_command msg got on_text
opened: connect connected on_connect on_connected connection on_connection connection_made open on_open init initialize
opened: start on_start accept accepted on_accept channel_active join mount setup begin
closed: close on_close on_closed disconnect disconnected on_disconnect on_disconnected connection_lost end on_end ended
closed: leave quit on_quit terminate terminated channel_inactive unmount cleanup destroy finish finished gone
timeout: timed_out on_timeout on_timer timer tick on_tick update idle on_idle heartbeat poll interval
timeout: user_event_triggered
failed: error on_error errored exception_caught on_exception catch rescue fail on_fail failure
malformed: frame_error on_frame_error bad_frame on_bad_frame invalid parse_error protocol_error decode_error
oversize: too_large toolarge too_long on_oversize line_length_exceeded frame_too_large payload_too_large
writable: on_writable drained on_drain flushed on_flush resume_writing channel_writability_changed
eof: on_eof half_closed half_close eof_received end_of_stream read_closed
drain: shutdown on_shutdown stop on_stop stopping going_away server_close
snapshot: save on_save serialize dump freeze hand_over export
upgrade: code_change restore on_load migrate migrated thaw import
]]

-- Settings of nginx, Node, HAProxy, uvicorn, OTP, Redis …
local KEYS = table_of [[
listen: address addr bind_address listener listeners listening server endpoint endpoints listen_on bind_to sockets
agent: handler handlers on_connect on_connection callback callbacks class prototype app application session object actor
agents: actors residents entities named_agents background_agents virtual_actors grains gen_servers
frame: framing codec framer parser decoder delimiter packet serializer wire
workers: threads processes thread_count worker_count num_workers n_workers worker_processes concurrency cpus cores
name: label id title
mode: permissions perms chmod socket_mode
backlog: queue_length listen_backlog somaxconn
keepalive: tcp_keepalive so_keepalive keep_alive
nodelay: tcp_nodelay no_delay
reuse_port: so_reuseport
setup: on_start on_load init start before_start startup initialise initialize on_worker_start
snapshot: save on_save persist dump freeze hand_over export serialize before_reload on_before_reload
teardown: on_stop cleanup on_exit stop shutdown finish on_worker_stop
modules: require requires packages libs libraries
unsafe: allow capabilities
compat: compatibility emulate polyfill shims
proxy: proxy_protocol accept_proxy proxyprotocol haproxy real_ip
trust: trusted trusted_proxies trust_proxy set_real_ip_from trusted_networks allow_from
control: control_socket admin admin_socket ctl pid_file pidfile
log.level: loglevel verbosity verbose debug
log.file: logfile log_path access_log error_log logger
log.format: logformat log_style
ping: ping_interval heartbeat_interval ping_every
pong: pong_timeout pong_wait ping_timeout_ms
origins: allowed_origins allow_origin check_origin
subprotocols: subprotocol sub_protocols websocket_protocols
compress: compression permessage_deflate deflate gzip
reload.policy: on_reload hot_reload reload_mode
hub.policy: slow_policy slow_member overflow_strategy
hub.messages: member_queue subscriber_queue max_subscriber_queue
hub.bytes: member_bytes subscriber_bytes
hub.inbox: hub_inbox hub_queue broadcast_queue
jobs.workers: job_workers job_threads thread_pool worker_pool threadpool task_workers background_workers executor
jobs.queue: job_queue queue_limit max_jobs backlog_jobs pending_jobs
jobs.when_full: on_full overflow overflow_policy full when_busy rejection_policy
jobs.lanes: priorities priority queues job_lanes
jobs.timeout: job_timeout
jobs.proceed: job_cpu job_cpu_limit
jobs.memory: job_memory
jobs.buffers: job_buffers job_bytes
jobs.message: max_job_size max_job_message
limits.connections: max_connections maxconn max_conns max_clients maxclients connection_limit worker_connections
limits.per_ip: max_per_ip per_ip_limit connections_per_ip max_connections_per_ip ip_limit
limits.accept_rate: rate rate_limit max_rate connections_per_second accepts_per_second
limits.frame: max_frame max_frame_size frame_size max_message_size max_packet_size max_payload max_line_length max_size
limits.uri: max_uri uri_limit max_url max_url_length large_client_header_buffers limit_request_line
limits.headers: max_header_size header_size header_limit max_headers_size limit_request_field_size
limits.fields: max_headers header_count max_headers_count limit_request_fields
limits.body: body_limit max_body max_body_size client_max_body_size max_request_size max_content_length content_length
limits.requests: keepalive_requests max_requests requests_per_connection max_keepalive_requests
limits.upload: max_upload upload_limit upload_size max_upload_size max_file_size stream_limit
limits.message: max_message_bytes message_size max_payload_length websocket_message
limits.inbox: queue queue_size max_queue pending max_pending
limits.mailbox: mailbox_size max_mailbox messages max_messages message_queue
limits.send_buffer: high_water_mark highwater hwm write_buffer send_buffer_size output_buffer max_send_buffer
limits.memory: max_memory memory_limit heap heap_size
limits.deflate: max_deflate deflate_memory compression_memory deflate_windows window_memory
limits.snapshot: max_snapshot snapshot_size max_state state_size
limits.garbage: gc gc_pause setpause gc_percent gogc garbage_percent collectgarbage
limits.proceed: cpu cpu_limit max_time handler_timeout execution_time time_limit proceed_timeout cpu_timeout
limits.reject: busy reject_message busy_message full_message
limits.slow_consumer: slow_client slow_reader backpressure
timeout.idle: idle_timeout timeout_idle keepalive_timeout inactivity_timeout inactivity idle_time heartbeat ping_timeout
timeout.read: read_timeout receive_timeout recv_timeout request_timeout client_timeout
timeout.write: write_timeout send_timeout
timeout.handshake: handshake_timeout tls_timeout ssl_timeout proxy_protocol_timeout
timeout.header: header_timeout headers_timeout client_header_timeout read_header_timeout
timeout.body: body_timeout client_body_timeout upload_timeout
timeout.first_frame: connect_timeout login_timeout auth_timeout hello_timeout
timeout.drain: drain_timeout grace grace_period graceful_timeout shutdown_timeout stop_timeout
]]

-- Words that only say of what kind a setting is.
local FILLERS = { max = true, maximum = true, limit = true, limits = true, size = true, timeout = true, timeouts = true,
  number = true, count = true, num = true, of = true, ms = true, seconds = true, sec = true, bytes = true, the = true }

local function words_of(name)
  local words, key = {}, {}
  for word in name:gsub("(%l)(%u)", "%1_%2"):lower():gmatch "%w+" do
    if not FILLERS[word] then words[#words + 1] = word:gsub("s$", "") end
  end
  table.sort(words)
  for i, word in ipairs(words) do key[i] = word end
  return table.concat(key, " ")
end

-- Of a group that the name speaks of: "idle_timeout_ms" → "timeout.idle", "max_frame_bytes" → "limits.frame".
local function by_words(name, paths)
  local wanted, lower = words_of(name), name:lower()
  local group = lower:find "time" and "timeout." or (lower:find "max" or lower:find "limit") and "limits." or nil
  if wanted == "" then return nil end
  local found
  for _, path in ipairs(paths) do
    local is_of_group = not group or path:sub(1, #group) == group
    if is_of_group and words_of(path:match "[^.]+$") == wanted then
      if found then return nil end
      found = path
    end
  end
  return found
end

--- The method of an agent that is called so elsewhere.
---@param name any
---@return string?
function M.method(name) return type(name) == "string" and METHODS[fold(name)] or nil end

--- The path of a key that is called so elsewhere, as far as it is among these.
---@param name any "max_connections", "limits.idle_timeout"
---@param paths string[]
---@return string? path "limits.connections"
function M.key(name, paths)
  if type(name) ~= "string" or #name > 64 then return nil end
  local last = name:match "[^.]+$" or name
  local meant = KEYS[fold(name)] or KEYS[fold(last)]
  for _, path in ipairs(paths) do
    if path == meant then return path end
  end
  return by_words(last, paths)
end

return M
