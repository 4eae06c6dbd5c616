/*
 * Lua's collector runs only in protected calls.
 *
 * A step of it may call finalisers, and these may raise: a file's does where the stack has no room, one of a script's
 * (unsafe = { "newproxy" }) or of a C module does as it pleases. What the core asks of Lua between calls, such as to
 * push a frame, would then have nobody to catch that. So between calls the collector is stopped, and what it owes
 * meanwhile is done in a protected call of its own, before the next call.
 *
 * Lua's API can stop the collector, but it forgets its threshold over that, and with it the pace. So the threshold is
 * kept and put back: its place, and that of the size of the heap, are searched for in the VM's state. Where they are
 * not found the API has to do: then a cycle begins anew with each call, which is slower, and as safe.
 */
#include "vm/vm.h"

#include <stdint.h>
#include <string.h>

/* ---- LuaJIT's own numbers ---- */

enum { WORDS_MAX = 2048, PROBE_BYTES = 1000 };

static size_t bytes_by_api(lua_State *lua)
{
	return (size_t)lua_gc(lua, LUA_GCCOUNT, 0) << 10 | (size_t)lua_gc(lua, LUA_GCCOUNTB, 0);
}

/* What a word of the VM's state may still be. */
struct words {
	size_t *at, before[WORDS_MAX];
	size_t count;
	bool not_heap[WORDS_MAX], not_threshold[WORDS_MAX];
};

/* Stopped, the threshold is out of reach; restarted, it is the size of the heap, which is that in both cases. */
static void rule_out(struct words *words, lua_State *lua)
{
	size_t bytes = bytes_by_api(lua);
	lua_gc(lua, LUA_GCSTOP, 0);
	for (size_t i = 0; i < words->count; i++) {
		words->not_heap[i] |= words->at[i] != bytes;
		words->not_threshold[i] |= words->at[i] < SIZE_MAX >> 32;
	}
	lua_gc(lua, LUA_GCRESTART, 0);
	for (size_t i = 0; i < words->count; i++) {
		words->not_heap[i] |= words->at[i] != bytes;
		words->not_threshold[i] |= words->at[i] != bytes;
	}
}

/* The one word that is not ruled out; NULL: there are more, or none. */
static size_t *collector_find(struct words *words, const bool *ruled_out)
{
	size_t *found = NULL;
	for (size_t i = 0; i < words->count; i++) {
		if (ruled_out[i])
			continue;
		if (found)
			return NULL;
		found = words->at + i;
	}
	return found;
}

static void find_words(struct vm *vm, lua_State *lua)
{
	enum { PROBES = 4 };
	struct words words = { .at = vm->state, .count = vm->state_bytes / sizeof(size_t) };
	if (sizeof(size_t) < 8 || words.count > WORDS_MAX)
		return;
	memcpy(words.before, words.at, words.count * sizeof(size_t));
	for (int i = 0; i < PROBES; i++) {
		lua_newuserdata(lua, PROBE_BYTES);
		lua_pop(lua, 1);
		rule_out(&words, lua);
	}
	size_t *heap = collector_find(&words, words.not_heap),
	       *threshold = collector_find(&words, words.not_threshold);
	if (heap && threshold) {
		vm->heap = heap;
		vm->threshold = threshold;
		*threshold = words.before[threshold - words.at];
	}
}

/* ---- steps ---- */

/* step(kilobytes) → is a cycle over? */
static int l_step(lua_State *lua)
{
	lua_pushboolean(lua, vm_step(vm_of(lua), lua, (int)lua_tointeger(lua, 1)));
	return 1;
}

/* room(slots) */
static int l_room(lua_State *lua)
{
	luaL_checkstack(lua, (int)lua_tointeger(lua, 1), "not enough memory");
	return 0;
}

bool vm_make_stack(struct vm *vm, lua_State *lua, int slots)
{
	lua_rawgeti(lua, LUA_REGISTRYINDEX, vm->room_ref);
	lua_pushinteger(lua, slots);
	if (!lua_pcall(lua, 1, 0, 0))
		return true;
	lua_pop(lua, 1);
	return false;
}

bool vm_push(struct vm *vm, lua_State *to, lua_CFunction push, const void *from)
{
	lua_State *lua = vm->lua;
	int top = lua_gettop(lua);
	vm_take_spare(vm);
	if (!vm->spare)
		return false;
	lua_pushcfunction(lua, push);
	lua_pushlightuserdata(lua, (void *)from);
	vm->lends_nothing = true;
	bool is_pushed = !lua_pcall(lua, 1, LUA_MULTRET, 0);
	vm->lends_nothing = false;
	if (!is_pushed)
		lua_settop(lua, top);
	else if (to != lua)
		lua_xmove(lua, to, lua_gettop(lua) - top);
	return is_pushed;
}

struct bytes {
	const void *bytes;
	size_t n;
};

static int l_push_bytes(lua_State *lua)
{
	const struct bytes *from = lua_touserdata(lua, 1);
	lua_pushlstring(lua, from->bytes, from->n);
	return 1;
}

bool vm_push_bytes(struct vm *vm, lua_State *to, const void *bytes, size_t n)
{
	if (!vm_may_push(vm, n))
		return vm_push(vm, to, l_push_bytes, &(struct bytes){ bytes, n });
	lua_pushlstring(to, bytes, n);
	return true;
}

void vm_open_collector(struct vm *vm, lua_State *lua)
{
	lua_pushcfunction(lua, l_room);
	vm->room_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	lua_pushcfunction(lua, l_step);
	vm->step_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	find_words(vm, lua);
}

/* What a finaliser has raised is on top of the stack. */
static void collector_note_failure(struct vm *vm)
{
	const char *text =
	    lua_type(vm->lua, -1) == LUA_TSTRING ? lua_tostring(vm->lua, -1) : "an error that is no text";
	size_t n = strnlen(text, sizeof vm->finaliser_error - 1);
	memcpy(vm->finaliser_error, text, n);
	vm->finaliser_error[n] = '\0';
	vm->finaliser_failures++;
}

/*
 * The step itself is C, and is not ended, whatever it takes; a finaliser that it calls is. After one that did not
 * return in its time there are more of its kind as a rule, and everybody waits for each: they have less.
 */
static void enter_step(struct vm *vm)
{
	enum { LESS_MS = 5 };
	vm->is_stepping = true;
	vm->call_begin = vm_allocated(vm);
	guard_enter(&vm->guard, vm->overran && vm->step_ms > LESS_MS ? LESS_MS : vm->step_ms);
}

static void leave_step(struct vm *vm, bool has_failed)
{
	enum guard_verdict verdict = guard_leave(&vm->guard);
	vm->is_stepping = false;
	vm->overran |= has_failed && verdict == GUARD_CPU;
	if (verdict == GUARD_MEMORY)
		(void)vm_judge(vm);
	if (has_failed)
		collector_note_failure(vm);
}

/* A finaliser may call into Lua itself: it is not to find that something is due. */
bool vm_collect_step(struct vm *vm, int kb)
{
	lua_State *lua = vm->lua;
	vm->kept_threshold = VM_NEVER_BYTES;
	lua_rawgeti(lua, LUA_REGISTRYINDEX, vm->step_ref);
	lua_pushinteger(lua, kb);
	enter_step(vm);
	bool has_failed = lua_pcall(lua, 1, 1, 0);
	leave_step(vm, has_failed);
	bool is_over = lua_type(lua, -1) == LUA_TBOOLEAN && lua_toboolean(lua, -1);
	if (is_over)
		vm->overran = false;
	lua_pop(lua, 1);
	vm_stop_collector(vm);
	return is_over;
}

void vm_collect_due(struct vm *vm)
{
	vm_collect_step(vm, (int)((*vm->heap - vm->kept_threshold) >> 10));
	/* Better here than in a call, which it would end: those that do not return come in numbers. */
	for (int more = 20; vm->overran && more; more--)
		vm_collect_step(vm, 0);
}

/* ---- where the words were not found ---- */

void vm_start_collector_slowly(struct vm *vm)
{
	uint64_t allocated = vm_allocated(vm);
	if (allocated - vm->stepped_at >= VM_DUE_BYTES && vm->kept_threshold != VM_NEVER_BYTES) {
		vm->stepped_at = allocated;
		vm_collect_step(vm, VM_DUE_BYTES >> 10);
	}
	lua_gc(vm->lua, LUA_GCRESTART, 0);
}

void vm_stop_collector_slowly(struct vm *vm)
{
	lua_gc(vm->lua, LUA_GCSTOP, 0);
	vm->kept_threshold = 0;
}
