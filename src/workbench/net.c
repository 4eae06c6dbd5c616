/*
 * perilune.workbench.net: sockets and processes on the workbench's loop. Nothing here waits: what happens is counted
 * (bench_tell()), and Lua looks again.
 */
#include "bind/bind.h"
#include "net/address.h"
#include "net/datagram.h"
#include "restart/program.h"
#include "workbench/bench.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * A byte stream, or datagrams to and from one address, in records (net/datagram.h). It lives until its close callback;
 * Lua's box is emptied before.
 */
enum wire_kind { WIRE_TCP, WIRE_PIPE, WIRE_DATAGRAMS };

struct wire {
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
		uv_udp_t udp;
	};
	struct bench *bench;
	uv_connect_t connect;
	uv_shutdown_t shutdown;
	enum wire_kind kind;
	bool is_open, is_over; /* connected; nothing more comes */
	int error;             /* why it is over; 0: it has come to its end */
	char *bytes;           /* that came, and were not taken */
	size_t count, room;
};

struct process {
	uv_process_t process;
	struct bench *bench;
	bool has_ended;
	int64_t code;
	int signal;
};

struct write {
	uv_write_t request; /* first */
	char bytes[];
};

static const char WIRE[] = "perilune.workbench.wire", PROCESS[] = "perilune.workbench.process";

/* ---- wires ---- */

static struct wire *check_wire(lua_State *lua)
{
	struct wire **box = luaL_checkudata(lua, 1, WIRE);
	if (!*box)
		luaL_error(lua, "it is closed");
	return *box;
}

static void net_on_closed(uv_handle_t *handle)
{
	struct wire *wire = handle->data;
	free(wire->bytes);
	free(wire);
}

static void net_finish(struct wire *wire, int error)
{
	wire->is_over = true;
	wire->error = error == UV_EOF ? 0 : error;
	bench_tell(wire->bench);
}

/* Room for so many bytes behind those that there are; false: no memory. */
static bool net_reserve(struct wire *wire, size_t n)
{
	if (wire->room - wire->count >= n)
		return true;
	size_t room = wire->room * 2 + 4 * n;
	char *grown = realloc(wire->bytes, room);
	if (!grown)
		return false;
	wire->bytes = grown;
	wire->room = room;
	return true;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct wire *wire = handle->data;
	(void)suggested;
	*buf = net_reserve(wire, 4096)
		   ? uv_buf_init(wire->bytes + wire->count, (unsigned)(wire->room - wire->count))
		   : uv_buf_init(NULL, 0);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct wire *wire = stream->data;
	(void)buf;
	if (n > 0)
		wire->count += (size_t)n;
	else if (n < 0)
		net_finish(wire, (int)n);
	bench_tell(wire->bench);
}

static void on_connect(uv_connect_t *request, int status)
{
	struct wire *wire = request->data;
	if (status == UV_ECANCELED)
		return;
	if (!status)
		status = uv_read_start(&wire->stream, on_alloc, on_read);
	wire->is_open = !status;
	if (status)
		net_finish(wire, status);
	bench_tell(wire->bench);
}

/* Behind the header that it is to have. */
static void on_datagram_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct wire *wire = handle->data;
	(void)suggested;
	*buf = net_reserve(wire, DATAGRAM_HEAD_BYTES + DATAGRAM_BYTES_MAX)
		   ? uv_buf_init(wire->bytes + wire->count + DATAGRAM_HEAD_BYTES, DATAGRAM_BYTES_MAX)
		   : uv_buf_init(NULL, 0);
}

static void on_datagram(uv_udp_t *handle, ssize_t n, const uv_buf_t *buf, const struct sockaddr *from,
			unsigned flags)
{
	struct wire *wire = handle->data;
	(void)buf;
	(void)flags;
	if (n < 0 || !from)
		return;
	datagram_put_head((uint8_t *)wire->bytes + wire->count, (size_t)n);
	wire->count += DATAGRAM_HEAD_BYTES + (size_t)n;
	bench_tell(wire->bench);
}

static int send_records(struct wire *wire, const char *bytes, size_t n)
{
	size_t total;
	for (size_t at = 0; n - at >= DATAGRAM_HEAD_BYTES; at += total) {
		total = datagram_record_bytes((const uint8_t *)bytes + at);
		if (total < DATAGRAM_HEAD_BYTES || total > n - at)
			return UV_EINVAL;
		uv_buf_t buf = uv_buf_init((char *)bytes + at + DATAGRAM_HEAD_BYTES,
					   (unsigned)(total - DATAGRAM_HEAD_BYTES));
		int sent = uv_udp_try_send(&wire->udp, &buf, 1, NULL);
		if (sent < 0)
			return sent;
	}
	return 0;
}

/* MAY RAISE. Pushes the box of a new wire, which closes with the loop if nobody closes it. */
static struct wire *new_wire(lua_State *lua, enum wire_kind kind)
{
	struct wire **box = lua_newuserdata(lua, sizeof(struct wire *));
	*box = NULL;
	luaL_getmetatable(lua, WIRE);
	lua_setmetatable(lua, -2);
	struct wire *wire = calloc(1, sizeof *wire);
	if (!wire)
		RAISE(lua, "not enough memory");
	wire->bench = bench_of(lua);
	wire->kind = kind;
	if (kind == WIRE_TCP)
		uv_tcp_init(&wire->bench->loop, &wire->tcp);
	else if (kind == WIRE_DATAGRAMS)
		uv_udp_init(&wire->bench->loop, &wire->udp);
	else
		uv_pipe_init(&wire->bench->loop, &wire->pipe, 0);
	wire->handle.data = wire->connect.data = wire->shutdown.data = wire;
	*box = wire;
	return wire;
}

/* MAY RAISE. The address that arguments 1 and 2 are: host, port. */
static void check_host(lua_State *lua, struct sockaddr_storage *address)
{
	const char *host = luaL_checkstring(lua, 1);
	int port = luaL_checkint(lua, 2);
	if (uv_ip4_addr(host, port, (struct sockaddr_in *)address) &&
	    uv_ip6_addr(host, port, (struct sockaddr_in6 *)address))
		luaL_argerror(lua, 1, "an IP address expected");
}

/* MAY RAISE. connect(host, port) → wire, that connects */
static int l_net_connect(lua_State *lua)
{
	struct sockaddr_storage address;
	check_host(lua, &address);
	struct wire *wire = new_wire(lua, WIRE_TCP);
	int err = uv_tcp_connect(&wire->connect, &wire->tcp, (struct sockaddr *)&address, on_connect);
	if (err)
		net_finish(wire, err);
	return 1;
}

/* MAY RAISE. datagrams(host, port) → wire of them, which is open at once */
static int l_datagrams(lua_State *lua)
{
	struct sockaddr_storage address;
	check_host(lua, &address);
	struct wire *wire = new_wire(lua, WIRE_DATAGRAMS);
	int err = uv_udp_connect(&wire->udp, (const struct sockaddr *)&address);
	if (!err)
		err = uv_udp_recv_start(&wire->udp, on_datagram_alloc, on_datagram);
	wire->is_open = !err;
	if (err)
		net_finish(wire, err);
	return 1;
}

/* MAY RAISE. connect_unix(path) → wire, that connects */
static int l_connect_unix(lua_State *lua)
{
	const char *path = luaL_checkstring(lua, 1);
	struct wire *wire = new_wire(lua, WIRE_PIPE);
	uv_pipe_connect(&wire->connect, &wire->pipe, path, on_connect);
	return 1;
}

/* state(wire) → is it open?, is it over?, why: nil | "ECONNRESET" … */
static int l_state(lua_State *lua)
{
	const struct wire *wire = check_wire(lua);
	lua_pushboolean(lua, wire->is_open);
	lua_pushboolean(lua, wire->is_over);
	if (!wire->error)
		return 2;
	lua_pushstring(lua, uv_err_name(wire->error));
	return 3;
}

/* read(wire) → what has come; it is taken */
static int l_read(lua_State *lua)
{
	struct wire *wire = check_wire(lua);
	lua_pushlstring(lua, wire->bytes ? wire->bytes : "", wire->count);
	wire->count = 0;
	return 1;
}

static void net_on_written(uv_write_t *request, int status)
{
	struct wire *wire = request->handle->data;
	(void)status; /* reading tells */
	bench_tell(wire->bench);
	free(request);
}

/* true | nil, code */
static int net_push_result(lua_State *lua, int err)
{
	if (!err) {
		lua_pushboolean(lua, 1);
		return 1;
	}
	lua_pushnil(lua);
	lua_pushstring(lua, uv_err_name(err));
	return 2;
}

/* MAY RAISE. write(wire, bytes) → true | nil, code */
static int l_write(lua_State *lua)
{
	struct wire *wire = check_wire(lua);
	size_t n;
	const char *bytes = luaL_checklstring(lua, 2, &n);
	if (wire->kind == WIRE_DATAGRAMS)
		return net_push_result(lua, send_records(wire, bytes, n));
	struct write *write = malloc(sizeof *write + n);
	if (!write)
		return luaL_error(lua, "not enough memory");
	memcpy(write->bytes, bytes, n);
	uv_buf_t buf = uv_buf_init(write->bytes, (unsigned)n);
	int err = uv_write(&write->request, &wire->stream, &buf, 1, net_on_written);
	if (err)
		free(write);
	return net_push_result(lua, err);
}

/* stall(wire, on): reads no more, or again */
static int l_net_stall(lua_State *lua)
{
	struct wire *wire = check_wire(lua);
	bool stalls = lua_toboolean(lua, 2);
	if (wire->kind == WIRE_DATAGRAMS && stalls)
		uv_udp_recv_stop(&wire->udp);
	else if (wire->kind == WIRE_DATAGRAMS)
		uv_udp_recv_start(&wire->udp, on_datagram_alloc, on_datagram);
	else if (stalls)
		uv_read_stop(&wire->stream);
	else if (wire->is_open && !wire->is_over)
		uv_read_start(&wire->stream, on_alloc, on_read);
	return 0;
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
	(void)request;
	(void)status;
}

/* half_close(wire) */
static int l_net_half_close(lua_State *lua)
{
	struct wire *wire = check_wire(lua);
	uv_shutdown(&wire->shutdown, &wire->stream, on_shutdown);
	return 0;
}

/* close(wire[, reset]). Again: nothing. */
static int l_net_close(lua_State *lua)
{
	struct wire **box = luaL_checkudata(lua, 1, WIRE), *wire = *box;
	*box = NULL;
	if (!wire)
		return 0;
	bool reset = lua_toboolean(lua, 2) && wire->kind == WIRE_TCP;
	if (!reset || uv_tcp_close_reset(&wire->tcp, net_on_closed))
		uv_close(&wire->handle, net_on_closed);
	return 0;
}

/* is_closed(wire) */
static int l_net_is_closed(lua_State *lua)
{
	struct wire **box = luaL_checkudata(lua, 1, WIRE);
	lua_pushboolean(lua, !*box);
	return 1;
}

/* address(wire) → "127.0.0.1:40123", its own, as the server's log has it | nil */
static int l_address(lua_State *lua)
{
	struct wire *wire = check_wire(lua);
	struct sockaddr_storage own;
	char text[ADDRESS_TEXT_BYTES];
	int n = sizeof own;
	bool is_udp = wire->kind == WIRE_DATAGRAMS;
	if (wire->kind == WIRE_PIPE || (is_udp ? uv_udp_getsockname(&wire->udp, (struct sockaddr *)&own, &n)
					       : uv_tcp_getsockname(&wire->tcp, (struct sockaddr *)&own, &n)))
		return 0;
	lua_pushstring(lua, address_text((struct sockaddr *)&own, text, sizeof text));
	return 1;
}

/* ---- processes ---- */

static struct process *check_process(lua_State *lua)
{
	struct process **box = luaL_checkudata(lua, 1, PROCESS);
	if (!*box)
		luaL_error(lua, "it is closed");
	return *box;
}

static void on_exit_of(uv_process_t *handle, int64_t code, int number)
{
	struct process *process = handle->data;
	process->has_ended = true;
	process->code = code;
	process->signal = number;
	bench_tell(process->bench);
}

static void on_process_closed(uv_handle_t *handle)
{
	free(handle->data);
}

/* MAY RAISE. The strings of the list at idx, with NULL behind them; in a userdata that is pushed. */
static char **read_words(lua_State *lua, int idx)
{
	luaL_checktype(lua, idx, LUA_TTABLE);
	size_t n = lua_objlen(lua, idx);
	luaL_argcheck(lua, n > 0, idx, "no words");
	char **words = lua_newuserdata(lua, (n + 1) * sizeof *words);
	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(lua, idx, (int)i + 1);
		words[i] = (char *)luaL_checkstring(lua, -1); /* the list keeps it */
		lua_pop(lua, 1);
	}
	words[n] = NULL;
	return words;
}

/*
 * MAY RAISE. spawn(words, inherits) → process, wire of its standard error | nil, code. This program, with these
 * arguments. `inherits`: its standard error is ours, and the wire of no use.
 */
static int l_spawn(lua_State *lua)
{
	char program[PATH_MAX];
	bool inherits = lua_toboolean(lua, 2);
	char **words = read_words(lua, 1);
	if (!program_real_path(program))
		return luaL_error(lua, "this program is not found");
	words[0] = program;
	struct process **box = lua_newuserdata(lua, sizeof(struct process *));
	*box = NULL;
	luaL_getmetatable(lua, PROCESS);
	lua_setmetatable(lua, -2);
	struct wire *errors = new_wire(lua, WIRE_PIPE);
	struct process *process = calloc(1, sizeof *process);
	if (!process)
		return luaL_error(lua, "not enough memory");
	process->bench = bench_of(lua);
	process->process.data = process;
	uv_stdio_container_t streams[] = {
		{ .flags = UV_IGNORE },
		{ .flags = UV_INHERIT_FD, .data.fd = STDOUT_FILENO },
		{ .flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = &errors->stream },
	};
	if (inherits)
		streams[2] = (uv_stdio_container_t){ .flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO };
	uv_process_options_t options = {
		.file = program, .args = words, .exit_cb = on_exit_of, .stdio = streams, .stdio_count = 3
	};
	int err = uv_spawn(&process->bench->loop, &process->process, &options);
	if (err) {
		uv_close((uv_handle_t *)&process->process, on_process_closed);
		lua_pushnil(lua);
		lua_pushstring(lua, uv_err_name(err));
		return 2;
	}
	*box = process;
	errors->is_open = !inherits;
	if (!inherits)
		uv_read_start(&errors->stream, on_alloc, on_read);
	return 2;
}

/* ended(process) → exit code, signal | nil */
static int l_net_ended(lua_State *lua)
{
	const struct process *process = check_process(lua);
	if (!process->has_ended)
		return 0;
	lua_pushnumber(lua, (lua_Number)process->code);
	lua_pushinteger(lua, process->signal);
	return 2;
}

/* kill(process, "TERM" | "KILL" | "HUP") */
static int l_kill(lua_State *lua)
{
	static const char *const NAMES[] = { "TERM", "KILL", "HUP", NULL };
	static const int NUMBERS[] = { SIGTERM, SIGKILL, SIGHUP };
	struct process *process = check_process(lua);
	int which = luaL_checkoption(lua, 2, "TERM", NAMES);
	if (!process->has_ended)
		uv_process_kill(&process->process, NUMBERS[which]);
	return 0;
}

/* forget(process): it has ended, or nobody is interested. Again: nothing. */
static int l_forget(lua_State *lua)
{
	struct process **box = luaL_checkudata(lua, 1, PROCESS), *process = *box;
	*box = NULL;
	if (process)
		uv_close((uv_handle_t *)&process->process, on_process_closed);
	return 0;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "connect", l_net_connect }, { "connect_unix", l_connect_unix },
	{ "datagrams", l_datagrams }, { "state", l_state },
	{ "read", l_read },           { "write", l_write },
	{ "stall", l_net_stall },     { "half_close", l_net_half_close },
	{ "close", l_net_close },     { "is_closed", l_net_is_closed },
	{ "address", l_address },     { "spawn", l_spawn },
	{ "ended", l_net_ended },     { "kill", l_kill },
	{ "forget", l_forget },       { NULL, NULL },
};

void bench_push_net(lua_State *lua)
{
	luaL_newmetatable(lua, WIRE);
	luaL_newmetatable(lua, PROCESS);
	lua_pop(lua, 2);
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}

void bench_close_net(struct bench *bench, uv_handle_t *handle)
{
	if (uv_is_closing(handle))
		return;
	if (handle == (uv_handle_t *)&bench->timer)
		uv_close(handle, NULL);
	else
		uv_close(handle, handle->type == UV_PROCESS ? on_process_closed : net_on_closed);
}
