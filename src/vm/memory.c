/* What a VM may allocate, and how its garbage is collected. */
#include "vm/vm.h"

#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

/* ---- limits ---- */

enum {
	CREDIT_BYTES = 65536, /* allocated between two looks at the limits */
	HARD_SPARE_BYTES = 8 << 20,
};

static size_t vm_memory_heap_bytes(const struct vm *vm)
{
	return (size_t)lua_gc(vm->lua, LUA_GCCOUNT, 0) << 10;
}

static void give_credit(struct vm *vm)
{
	int64_t allocated = (int64_t)vm_allocated(vm), more = CREDIT_BYTES;
	if (vm->call_end > allocated && vm->call_end - allocated < more)
		more = vm->call_end - allocated;
	vm->credit = more;
	vm->granted = allocated + more;
}

/* What is live even after a collection cannot be helped by ending calls: then only growth ends them. */
static size_t full_at(const struct vm *vm)
{
	size_t limit = vm->memory_bytes, grown = vm->live_bytes + limit / 16;
	return grown > limit ? grown : limit;
}

/* What the running call has allocated itself, garbage and all. */
static size_t own_bytes(const struct vm *vm)
{
	return (size_t)(vm_allocated(vm) - vm->call_begin);
}

/*
 * The collector does a share of work for each step, in a rhythm that was set between calls, when the heap
 * was another: it lets much garbage wait, and large strings outrun it. Near the limit a cycle begins now, and
 * its share is SPEED_UP times what is allocated: so it is over long before the limit is reached, yet whoever
 * allocates a little pays for a little. (Of large strings as much as of them is enough: they need no marking.)
 */
static void hurry_collector(struct vm *vm, size_t heap, size_t bytes)
{
	enum { SPEED_UP = 16, STEP_BYTES = 1024, SHARE_MAX = 1024 };
	size_t near = vm->memory_bytes / 4 * 3, growth = vm->memory_bytes / 16;
	if (vm->hurry_at > heap + growth)
		vm->hurry_at = heap + growth;
	if (heap < near)
		return;
	/* A step is due every STEP_BYTES, or after one larger request; speed is in percent of that. */
	size_t share = bytes / STEP_BYTES < SHARE_MAX ? bytes / STEP_BYTES : SHARE_MAX;
	lua_gc(vm->lua, LUA_GCSETSTEPMUL, 100 * (share > SPEED_UP ? (int)share : SPEED_UP));
	if (heap < vm->hurry_at)
		return;
	vm->hurry_at = heap + growth;
	lua_gc(vm->lua, LUA_GCRESTART, 0);
}

/*
 * Past the limit (soft) a call is told to end and memory is given all the same; the call ends at its next
 * instruction. Not at once: what is over the limit may be garbage of large strings, which the next steps collect. But
 * past an eighth more (hard) for one huge request, after which the next could be twice as large.
 *
 * What is told to end is not refused, for LuaJIT does not take it well: an error within the collector, or in whatever
 * compiled code calls, is unwound with a stack that is not as it ought to be, and now and then the process dies of it.
 * Code doubles what it has; only a request that is more than that is refused, of a function that was told a size.
 * Outside of calls the core allocates little, and may not raise: it is never refused.
 *
 * A call that has not allocated as much as the limit by itself may owe the lack of memory to garbage that others
 * left. It has a quarter more, so that one that fills the memory alone, the usual case, is known by then. If it is
 * not, vm_memory_has_room() collects before it is ended.
 */
static bool may_have(struct vm *vm, size_t bytes)
{
	enum { LOOKS = 4 };
	if (!vm->memory_bytes || !guard_is_running(&vm->guard))
		return true;
	size_t limit = vm->memory_bytes, heap = vm_memory_heap_bytes(vm) + bytes, soft = full_at(vm);
	hurry_collector(vm, heap, bytes);
	if (heap <= soft) {
		vm->looks_past_limit = 0;
		return true;
	}
	vm->is_full = true;
	bool alone = own_bytes(vm) > limit;
	if (!alone && soft < limit + limit / 4)
		soft = limit + limit / 4;
	size_t hard = soft + limit / 8 + HARD_SPARE_BYTES, most = 2 * limit + limit / 2 + HARD_SPARE_BYTES;
	if (bytes > most)
		return false;
	bool is_huge = bytes > limit / 3 && heap > hard && (alone || heap > most);
	bool looked = heap > soft && ++vm->looks_past_limit > LOOKS;
	if (is_huge || (looked && (alone || vm_allocated(vm) >= vm->collect_at)))
		guard_interrupt(&vm->guard, GUARD_MEMORY);
	return true;
}

/*
 * The collection is whole, for half a one tells nothing, and not at the call's expense: its budget begins anew. The
 * neighbours wait for it (for each 10 MB of small tables 4 ms, of small strings 20 ms); the alternative were to end a
 * call for what others did. It happens only where others hold a quarter of the limit or more, since a call that fills
 * the memory alone is known without; and then not again before the call has allocated a sixteenth of the limit.
 */
static bool vm_memory_has_room(struct guard *guard, lua_State *lua)
{
	struct vm *vm = (struct vm *)(void *)((char *)guard - offsetof(struct vm, guard));
	if (!vm->is_proven && own_bytes(vm) <= vm->memory_bytes) {
		lua_gc(lua, LUA_GCCOLLECT, 0);
		size_t heap = vm_memory_heap_bytes(vm);
		vm->collect_at = vm_allocated(vm) + vm->memory_bytes / 16;
		vm->looks_past_limit = 0;
		if (heap <= full_at(vm)) {
			vm->live_bytes = heap < vm->live_bytes ? heap : vm->live_bytes;
			return true;
		}
	}
	vm->is_proven = true;
	return false;
}

/* A call that came to its end before the hook could ask vm_memory_has_room() is not to blame for what is not known. */
enum guard_verdict vm_judge(struct vm *vm)
{
	bool is_proven = vm->is_proven || own_bytes(vm) > vm->memory_bytes;
	vm->is_proven = false;
	return is_proven ? GUARD_MEMORY : GUARD_FINE;
}

void vm_limit_memory(struct vm *vm)
{
	vm->guard.has_room = vm_memory_has_room;
}

/* The credit is used up. False: the request is refused. */
static __attribute__((noinline)) bool look_at_limits(struct vm *vm, size_t bytes)
{
	if (!vm->lua) {
		give_credit(vm);
		return true;
	}
	if (!may_have(vm, bytes)) {
		vm->credit += (int64_t)bytes;
		return false;
	}
	if ((int64_t)vm_allocated(vm) > vm->call_end)
		guard_interrupt(&vm->guard, GUARD_ALLOCATION);
	give_credit(vm);
	return true;
}

static void *vm_memory_allocate(struct vm *vm, void *block, size_t old_bytes, size_t new_bytes)
{
#ifdef PERILUNE_PLAIN_ALLOC
	/* Sanitizer builds: malloc knows each block's bounds, a slab does not. */
	(void)vm;
	(void)old_bytes;
	if (new_bytes)
		return realloc(block, new_bytes);
	free(block);
	return NULL;
#else
	return slab_alloc(&vm->slab, block, old_bytes, new_bytes);
#endif
}

/*
 * The system has no more. In a call that is the call's end; between calls nobody could catch the error, so there is a
 * spare: address space that was never touched, enough for a further chunk of the slab and a block beside it. Whatever
 * may be larger than VM_PLAIN_BYTES is pushed protected, and leaves the spare alone: vm_push().
 */
enum { SPARE_BYTES = SLAB_SPAN_BYTES + (1 << 20) };

void vm_take_spare(struct vm *vm)
{
	if (vm->spare)
		return;
	void *spare = mmap(NULL, SPARE_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	vm->spare = spare == MAP_FAILED ? NULL : spare;
}

void vm_drop_spare(struct vm *vm)
{
	if (vm->spare)
		munmap(vm->spare, SPARE_BYTES);
	vm->spare = NULL;
}

static __attribute__((noinline)) void *allocate_from_spare(struct vm *vm, void *block, size_t old_bytes,
							   size_t new_bytes)
{
	bool is_call = guard_is_running(&vm->guard) && !vm->is_stepping;
	if (is_call || vm->lends_nothing || !vm->spare)
		return NULL;
	vm_drop_spare(vm);
	vm->is_full = true; /* so that garbage is collected, and the spare taken anew at the latest then */
	void *got = vm_memory_allocate(vm, block, old_bytes, new_bytes);
	vm_take_spare(vm);
	return got;
}

void *vm_alloc(void *data, void *block, size_t old_bytes, size_t new_bytes)
{
	struct vm *vm = data;
	if (new_bytes <= old_bytes)
		return vm_memory_allocate(vm, block, old_bytes, new_bytes);
	vm->credit -= (int64_t)(new_bytes - old_bytes);
	if (__builtin_expect(vm->credit < 0, 0) && !look_at_limits(vm, new_bytes - old_bytes))
		return NULL;
	void *got = vm_memory_allocate(vm, block, old_bytes, new_bytes);
	return __builtin_expect(got != NULL, 1) ? got : allocate_from_spare(vm, block, old_bytes, new_bytes);
}

void vm_limit_call(struct vm *vm, uint64_t bytes)
{
	vm->call_bytes = bytes;
	vm->call_end = (int64_t)(vm_allocated(vm) + bytes);
	give_credit(vm);
}

void vm_unlimit_call(struct vm *vm)
{
	vm->call_end = INT64_MAX;
	give_credit(vm);
}

/* One or two milliseconds of the collector's work. True: a cycle is over. */
static bool collect_a_while(struct vm *vm)
{
	enum { STEPS = 16 };
	for (int i = 0; i < STEPS; i++)
		if (vm_collect_step(vm, 0))
			return true;
	return false;
}

void vm_make_room(struct vm *vm)
{
	if (!vm->is_full)
		return;
	vm->live_bytes = vm_memory_heap_bytes(vm);
	vm->looks_past_limit = 0;
}

/*
 * In steps, for the neighbours wait meanwhile, and a heap of gigabytes takes seconds: unless one call after
 * another fills the memory faster than that. Until it is over, what is there counts as live, so that nobody is
 * ended for what another left.
 */
void vm_collect_some(struct vm *vm, bool may_take_long)
{
	/* The first may have begun before the garbage was made, or before its owner was gone. Further ones let LuaJIT
	 * halve the table of strings, one each: while it is large and empty, every cycle takes long to sweep it. */
	enum { CYCLES = 6, AT_ONCE = 2, SPEED = 10000 };
	size_t limit = vm->memory_bytes;
	if (!vm->relief_cycles)
		vm->relief_cycles = CYCLES;
	lua_gc(vm->lua, LUA_GCSETSTEPMUL, SPEED);
	int at_once = may_take_long ? AT_ONCE : 0;
	do {
		if (!collect_a_while(vm))
			continue;
		vm->relief_cycles--;
		at_once--;
	} while (at_once > 0 && vm->relief_cycles && !vm->overran &&
		 vm_memory_heap_bytes(vm) > limit + limit / 8);
	vm_make_room(vm);
	vm_take_spare(vm);
	if (vm->relief_cycles)
		return;
	vm->is_full = false;
	vm->stays_full = limit && vm->live_bytes > limit ? vm->stays_full + 1 : 0;
	lua_gc(vm->lua, LUA_GCSETSTEPMUL, vm->pace.speed);
}
