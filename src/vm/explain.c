/* Why a call was ended, with the value of the limit: what its user reads, and may want to change. */
#include "vm/vm.h"

#include <inttypes.h>
#include <stdio.h>

/* "512m", "64k", "1000 bytes": as settings are written, where that is exact. */
static void show_bytes(char *text, size_t size, uint64_t bytes)
{
	static const char UNITS[] = "kmg";
	uint64_t n = bytes;
	int unit = -1;
	while (n && n % 1024 == 0 && unit < 2) {
		n /= 1024;
		unit++;
	}
	/* The default of limits.memory is a share of the machine's. */
	if (unit < 1 && bytes > 16 << 20)
		snprintf(text, size, "%" PRIu64 "m", bytes >> 20);
	else if (unit < 0)
		snprintf(text, size, "%" PRIu64 " bytes", n);
	else
		snprintf(text, size, "%" PRIu64 "%c", n, UNITS[unit]);
}

static void explain_time(const struct vm *vm, char *text, size_t size)
{
	uint32_t ms = guard_budget_ms(&vm->guard);
	if (!ms || ms == GUARD_UNBOUNDED_MS)
		return; /* ended by other means: what is there already has to do */
	if (vm->is_stepping || vm->guard.is_closing) {
		snprintf(text, size, "a finaliser (__gc) did not return in %u ms of CPU time", ms);
		return;
	}
	const char *unit = ms < 1000 ? "ms" : "s";
	double n = ms < 1000 ? ms : ms / 1000.0;
	static const char *const WHOSE[] = {
		[VM_LOADING] = "(the most that loading and setup may take)",
		[VM_KEEPING] = "(snapshot may take 1 s)",
		[VM_ENDING] = "(teardown may take 1 s)",
	};
	_Static_assert(VM_TEARDOWN_MS == 1000 && VM_SNAPSHOT_MS == 1000, "the texts say so");
	bool is_shared = vm->stage == VM_ENDING && ms < VM_TEARDOWN_MS;
	int used = snprintf(text, size, "it ran for over %g %s of CPU time ", n, unit);
	if (used < 0 || (size_t)used >= size)
		return;
	if (vm->stage == VM_SERVING)
		snprintf(text + used, size - (size_t)used, "without waiting (%s.proceed)", vm->limits);
	else
		snprintf(text + used, size - (size_t)used, "%s",
			 is_shared ? "(teardown may take 1 s; at a stop that is for all together)"
				   : WHOSE[vm->stage]);
}

static void explain_explain(const struct guard *guard, enum guard_verdict verdict, char *text, size_t size)
{
	const struct vm *vm =
	    (const struct vm *)(const void *)((const char *)guard - offsetof(struct vm, guard));
	char limit[32];
	switch (verdict) {
	case GUARD_CPU:
		explain_time(vm, text, size);
		break;
	case GUARD_MEMORY:
		show_bytes(limit, sizeof limit, vm->memory_bytes);
		if (vm->stage == VM_LOADING)
			snprintf(text, size, "the worker's memory is used up (loading may take %s)", limit);
		else
			snprintf(text, size, "the worker's memory is used up (%s.memory is %s)", vm->limits,
				 limit);
		break;
	case GUARD_ALLOCATION:
		show_bytes(limit, sizeof limit, vm->call_bytes);
		snprintf(text, size, "it allocated too much in one call (limits.allocation is %s)", limit);
		break;
	case GUARD_CALLED_OFF:
	case GUARD_FINE:
		break;
	}
}

void vm_explain_limits(struct vm *vm)
{
	vm->guard.explain = explain_explain;
}
