/*
 * Kills under load: three threads with a VM each run calls of random kinds under small budgets, some
 * without end, most innocent, and everything about their ends is checked.
 *
 *   kill_soak SECONDS [SEED [WAY [MIX]]]
 *
 * WAY: of vm/interrupt.h; otherwise, or if it is "-", the first that works. MIX: "memory" is calls that fill the
 * memory or need much of it; otherwise all.
 *
 * Prints one JSON object. Exit status 1: a call was killed that had not used up its budget, an innocent
 * one gave a wrong result, a hook stayed armed; a call that does not come back within 5 s of
 * CPU time ends the program.
 * Run it from the root of the source tree: the calls are in bench/core/kill_soak.lua.
 */
#include "harness.h"

#include "vm/vm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	WORKERS = 3,
	KINDS_MAX = 64,
	BUDGET_MIN_MS = 5,
	BUDGET_MAX_MS = 20,
	LATE_MS = 20,        /* of CPU time past the budget */
	MISSED_S = 5,        /* of CPU time in one call */
	MISSED_WALL_S = 120, /* the machine may be busy */
	MEMORY_BYTES = 48 << 20,
	ENDLESS_PERCENT = 30,
};

struct latencies {
	uint32_t *us;
	size_t n, room;
};

struct kind {
	char name[40];
	/* Innocent: the CPU time of a unit of work, as far as it is known; how many there may be. */
	double unit_ns, most;
};

struct call {
	int status;
	enum guard_verdict verdict;
	uint32_t budget_ms;
	int64_t cpu_ns, wall_ns;
};

struct worker {
	pthread_t thread;
	struct vm vm;
	uint64_t seed;
	struct kind endless[KINDS_MAX], innocent[KINDS_MAX];
	unsigned endless_count, innocent_count;
	lua_State *co;      /* at CO of the VM's stack; NULL: none that can be used again */
	lua_State *entered; /* the coroutine that runs, or the VM's own */
	bool abandoned;     /* it was ended by a yield */
	struct latencies cpu, wall;
	int heap_first_kb, heap_last_kb;
	/* Read by the main thread. */
	_Atomic int64_t entered_ns;     /* clock; 0: not in Lua */
	_Atomic int64_t entered_cpu_ns; /* of the thread, by then */
	_Atomic(const char *) running;
	/* What happened. */
	uint64_t calls, expected, kills[GUARD_ALLOCATION + 1], refused, late, borders, border_waits, abandons,
	    placeless;
	uint64_t wrong_hits, wrong_results, survivors, left_armed;
};

enum { MODULE = 1, CO = 2, TOP = 2 }; /* the VM's stack */

static struct worker workers[WORKERS];
static atomic_bool is_over;
static const char *mix = "all";

/* ---- small things ---- */

static void die(const char *format, ...)
{
	va_list values;
	va_start(values, format);
	vfprintf(stderr, format, values);
	va_end(values);
	fputc('\n', stderr);
	exit(2);
}

static int64_t clock_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint32_t below(struct worker *worker, uint32_t bound)
{
	worker->seed ^= worker->seed << 13;
	worker->seed ^= worker->seed >> 7;
	worker->seed ^= worker->seed << 17;
	return (uint32_t)(worker->seed >> 16) % bound;
}

static void note(struct latencies *latencies, int64_t ns)
{
	if (latencies->n == latencies->room) {
		latencies->room = latencies->room ? 2 * latencies->room : 4096;
		latencies->us = realloc(latencies->us, latencies->room * sizeof *latencies->us);
		if (!latencies->us)
			die("not enough memory");
	}
	latencies->us[latencies->n++] = ns > 0 ? (uint32_t)(ns / 1000) : 0;
}

static long rss_kb(void)
{
	long total = 0, resident = 0;
	FILE *statm = fopen("/proc/self/statm", "r");
	if (statm) {
		if (fscanf(statm, "%ld %ld", &total, &resident) != 2)
			resident = 0;
		fclose(statm);
	}
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* ---- a call ---- */

static void check_disarmed(struct worker *worker, const char *name)
{
	const struct guard *guard = &worker->vm.guard;
	bool armed = guard->verdict || guard_is_running(guard) || lua_gethook(worker->vm.lua) ||
		     lua_gethookmask(worker->vm.lua) || (guard->hook_mask && *guard->hook_mask);
	if (!armed)
		return;
	worker->left_armed++;
	fprintf(stderr, "left armed after %s: hook mask %#x\n", name,
		guard->hook_mask ? *guard->hook_mask : 0U);
}

/* As a server does with a handler's coroutine; what runs on the VM's own stack ends by errors. */
static bool abandon(void *owner, lua_State *lua)
{
	struct worker *worker = owner;
	worker->abandoned = lua == worker->entered && lua != worker->vm.lua;
	return worker->abandoned;
}

/* Runs what lies on `lua` in one dispatch. */
static struct call enter(struct worker *worker, lua_State *lua, int nargs, const char *name,
			 const struct vm_budget *budget)
{
	struct call call = { .budget_ms = budget->ms };
	int64_t wall_ns = clock_ns(CLOCK_MONOTONIC), cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	atomic_store(&worker->running, name);
	atomic_store(&worker->entered_cpu_ns, cpu_ns);
	atomic_store(&worker->entered_ns, wall_ns);
	worker->entered = lua;
	worker->abandoned = false;
	vm_enter(&worker->vm, budget);
	call.status = lua == worker->vm.lua ? lua_pcall(lua, nargs, 1, 0) : lua_resume(lua, nargs);
	call.verdict = vm_leave(&worker->vm);
	if (worker->abandoned) {
		call.status = LUA_ERRRUN;
		worker->abandons++;
	}
	call.cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns;
	call.wall_ns = clock_ns(CLOCK_MONOTONIC) - wall_ns;
	atomic_store(&worker->entered_ns, 0);
	worker->calls++;
	check_disarmed(worker, name);
	if (call.verdict == GUARD_CPU && call.cpu_ns < call.budget_ms * INT64_C(1000000)) {
		worker->wrong_hits++;
		fprintf(stderr, "wrong hit: %s, %lld of %u ms\n", name, (long long)call.cpu_ns / 1000000,
			call.budget_ms);
	}
	return call;
}

/* The coroutine of the last call, where that came to its end. */
static lua_State *take_coroutine(struct worker *worker)
{
	if (!worker->co) {
		worker->co = lua_newthread(worker->vm.lua);
		lua_replace(worker->vm.lua, CO);
	}
	lua_settop(worker->co, 0);
	return worker->co;
}

/* Pushes module[group][index + 1][field]. */
static void push_field(lua_State *lua, const char *group, unsigned index, const char *field)
{
	lua_getfield(lua, MODULE, group);
	lua_rawgeti(lua, -1, (int)index + 1);
	lua_getfield(lua, -1, field);
	lua_replace(lua, -3);
	lua_pop(lua, 1);
}

/*
 * Calls module[group][index + 1].run(amount), in a coroutine or on the VM's own stack; each part between two
 * waits has the whole budget. *result: what it returned, while the status is 0.
 */
static struct call run(struct worker *worker, const char *group, unsigned index, const char *name,
		       double amount, const struct vm_budget *budget, double *result)
{
	lua_State *lua = worker->vm.lua, *co = take_coroutine(worker);
	bool waits = !strncmp(name, "a wait", 6) || !strcmp(name, "waits"),
	     parts = waits || below(worker, 4) > 0;
	lua_State *on = parts ? co : lua;
	push_field(lua, group, index, "run");
	if (parts)
		lua_xmove(lua, co, 1);
	lua_pushnumber(on, amount);
	struct call call = enter(worker, on, 1, name, budget);
	while (call.status == LUA_YIELD) {
		worker->border_waits += call.verdict != GUARD_FINE;
		call = enter(worker, on, 0, name, budget);
	}
	*result = call.status ? 0 : lua_tonumber(on, -1);
	if (parts && call.status)
		worker->co = NULL;
	lua_settop(lua, TOP);
	return call;
}

static void clean_up(struct worker *worker, const struct call *call)
{
	struct vm *vm = &worker->vm;
	if (call->status == LUA_ERRMEM)
		vm->is_full = true;
	vm_relieve(vm, true);
	vm_sample(vm);
	if (below(worker, 64) == 0)
		vm_pace(vm, below(worker, 200));
}

/* ---- endless ---- */

static void run_endless(struct worker *worker)
{
	unsigned index = below(worker, worker->endless_count);
	struct vm_budget budget = { .ms = BUDGET_MIN_MS + below(worker, BUDGET_MAX_MS - BUDGET_MIN_MS + 1) };
	const char *name = worker->endless[index].name;
	double result;
	if (below(worker, 8) == 0)
		budget.allocated_bytes = 1 + below(worker, 1 << 20);
	worker->expected++;
	struct call call = run(worker, "endless", index, name, 1 + below(worker, 1000), &budget, &result);
	if (!call.status) {
		worker->survivors++;
		fprintf(stderr, "returned by itself: %s\n", name);
		return;
	}
	int64_t over_ns = call.cpu_ns - budget.ms * INT64_C(1000000);
	if (call.verdict == GUARD_FINE && call.status == LUA_ERRMEM)
		worker->refused++;
	else
		worker->kills[call.verdict]++;
	if (call.verdict == GUARD_CPU) {
		note(&worker->cpu, over_ns);
		note(&worker->wall, call.wall_ns - budget.ms * INT64_C(1000000));
		worker->placeless += !*worker->vm.guard.place;
	}
	if (over_ns > LATE_MS * INT64_C(1000000)) {
		worker->late++;
		fprintf(stderr, "late: %s, by %lld ms of CPU time\n", name, (long long)over_ns / 1000000);
	}
	clean_up(worker, &call);
}

/* ---- innocent ---- */

static double answer(struct worker *worker, unsigned index, double amount)
{
	lua_State *lua = worker->vm.lua;
	push_field(lua, "innocent", index, "answer");
	lua_pushnumber(lua, amount);
	struct call call = enter(worker, lua, 1, "answer", &(struct vm_budget){ 0 });
	if (call.status || call.verdict != GUARD_FINE)
		die("no answer: %s", lua_tostring(lua, -1));
	double value = lua_tonumber(lua, -1);
	lua_settop(lua, TOP);
	return value;
}

/* Some take microseconds, most a good part of the budget, some all of it or a little more. */
static double choose_amount(struct worker *worker, const struct kind *kind, uint32_t budget_ms)
{
	uint32_t chance = below(worker, 100), percent = 60 + below(worker, 36);
	if (chance < 30 || kind->unit_ns == 0)
		return 1 + below(worker, 100);
	if (chance < 45)
		percent = 95 + below(worker, 15);
	double amount = budget_ms * 1e4 * percent / kind->unit_ns;
	return amount < 1 ? 1 : amount > kind->most ? kind->most : (double)(int64_t)amount;
}

static void run_innocent(struct worker *worker)
{
	unsigned index = below(worker, worker->innocent_count);
	struct kind *kind = &worker->innocent[index];
	struct vm_budget budget = { .ms = BUDGET_MIN_MS + below(worker, BUDGET_MAX_MS - BUDGET_MIN_MS + 1) };
	double result, amount = choose_amount(worker, kind, budget.ms);
	struct call call = run(worker, "innocent", index, kind->name, amount, &budget, &result);
	if (call.verdict != GUARD_FINE) {
		worker->borders++;
		kind->unit_ns *= 1.1;
		if (call.verdict != GUARD_CPU) {
			worker->wrong_hits++;
			fprintf(stderr, "wrong hit: %s of %.0f, verdict %d, heap %d KB\n", kind->name, amount,
				call.verdict, lua_gc(worker->vm.lua, LUA_GCCOUNT, 0));
		}
	} else if (call.status || result != answer(worker, index, amount)) {
		worker->wrong_results++;
		fprintf(stderr, "wrong result: %s of %.0f: status %d, %.17g\n", kind->name, amount,
			call.status, result);
	} else if (kind->unit_ns == 0) {
		kind->unit_ns = (double)call.cpu_ns / amount;
	} else if (amount > 100) {
		kind->unit_ns = 0.8 * kind->unit_ns + 0.2 * (double)call.cpu_ns / amount;
	}
	if (call.verdict == GUARD_FINE || call.status == 0)
		clean_up(worker, &call);
	else
		clean_up(worker, &(struct call){ .status = call.status });
}

/* ---- a worker ---- */

static unsigned read_kinds(lua_State *lua, const char *group, struct kind *kinds)
{
	lua_getfield(lua, MODULE, group);
	unsigned n = (unsigned)lua_objlen(lua, -1);
	lua_pop(lua, 1);
	if (n > KINDS_MAX)
		die("too many kinds");
	for (unsigned i = 0; i < n; i++) {
		push_field(lua, group, i, "name");
		snprintf(kinds[i].name, sizeof kinds[i].name, "%s", lua_tostring(lua, -1));
		push_field(lua, group, i, "most");
		kinds[i].most = lua_tonumber(lua, -1);
		lua_pop(lua, 2);
	}
	return n;
}

static void open_worker(struct worker *worker)
{
	struct vm *vm = &worker->vm;
	if (vm_open(vm))
		die("not enough memory");
	guard_set_least(&vm->guard, BUDGET_MIN_MS);
	vm->guard.abandon = abandon;
	vm->guard.owner = worker;
	vm->memory_bytes = MEMORY_BYTES;
	if (luaL_loadfile(vm->lua, "bench/core/kill_soak.lua"))
		die("%s", lua_tostring(vm->lua, -1));
	lua_pushstring(vm->lua, mix);
	if (vm_pcall(vm, vm->lua, 1, 1, &VM_LOAD_BUDGET))
		die("%s", lua_tostring(vm->lua, -1));
	lua_settop(vm->lua, TOP);
	worker->endless_count = read_kinds(vm->lua, "endless", worker->endless);
	worker->innocent_count = read_kinds(vm->lua, "innocent", worker->innocent);
}

static int live_kb(struct worker *worker)
{
	worker->co = NULL; /* a dead one holds on to what it had */
	lua_pushnil(worker->vm.lua);
	lua_replace(worker->vm.lua, CO);
	lua_gc(worker->vm.lua, LUA_GCCOLLECT, 0);
	lua_gc(worker->vm.lua, LUA_GCCOLLECT, 0);
	return lua_gc(worker->vm.lua, LUA_GCCOUNT, 0);
}

static void *work(void *data)
{
	enum { SETTLED = 500 };
	struct worker *worker = data;
	open_worker(worker);
	for (unsigned i = 0; !atomic_load(&is_over); i++) {
		if (below(worker, 100) < ENDLESS_PERCENT)
			run_endless(worker);
		else
			run_innocent(worker);
		if (i == SETTLED)
			worker->heap_first_kb = live_kb(worker);
	}
	worker->heap_last_kb = live_kb(worker);
	vm_close(&worker->vm);
	return NULL;
}

/* ---- the report ---- */

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static void print_latencies(const char *name, size_t offset)
{
	struct latencies all = { 0 };
	for (int w = 0; w < WORKERS; w++) {
		struct latencies *part = (struct latencies *)(void *)((char *)&workers[w] + offset);
		for (size_t i = 0; i < part->n; i++)
			note(&all, part->us[i] * INT64_C(1000));
	}
	if (!all.n)
		note(&all, 0);
	qsort(all.us, all.n, sizeof *all.us, compare);
	printf("\"%s\":{\"p50\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f}", name, all.us[all.n / 2] / 1e3,
	       all.us[all.n * 99 / 100] / 1e3, all.us[all.n * 999 / 1000] / 1e3, all.us[all.n - 1] / 1e3);
	free(all.us);
}

static uint64_t sum(size_t offset)
{
	uint64_t total = 0;
	for (int w = 0; w < WORKERS; w++)
		total += *(uint64_t *)(void *)((char *)&workers[w] + offset);
	return total;
}

#define SUM(FIELD) ((unsigned long long)sum(offsetof(struct worker, FIELD)))

/* All but the threads' own may still be written when a call was missed; then the figures are approximate. */
static bool report(double seconds, uint64_t seed, const char *way, const char *missed, long rss_first_kb)
{
	int heap_first_kb = 0, heap_last_kb = 0;
	for (int w = 0; w < WORKERS; w++) {
		heap_first_kb += workers[w].heap_first_kb;
		heap_last_kb += workers[w].heap_last_kb;
	}
	printf("{\"seconds\":%.1f,\"seed\":%llu,\"way\":\"%s\",\"mix\":\"%s\",\"calls\":%llu,\"kills_"
	       "expected\":%llu,"
	       "\"kills\":%llu,",
	       seconds, (unsigned long long)seed, way, mix, SUM(calls), SUM(expected), SUM(kills[GUARD_CPU]));
	printf(
	    "\"memory_verdicts\":%llu,\"allocation_verdicts\":%llu,\"memory_refused\":%llu,\"raised\":%llu,",
	    SUM(kills[GUARD_MEMORY]), SUM(kills[GUARD_ALLOCATION]), SUM(refused), SUM(kills[GUARD_FINE]));
	printf("\"by_yield\":%llu,\"late\":%llu,\"without_place\":%llu,\"over_budget_innocents\":%llu,"
	       "\"waits_with_verdict\":%llu,",
	       SUM(abandons), SUM(late), SUM(placeless), SUM(borders), SUM(border_waits));
	printf("\"wrong_hits\":%llu,\"wrong_results\":%llu,\"survivors\":%llu,\"left_armed\":%llu,\"missed\":"
	       "%s%s%s,",
	       SUM(wrong_hits), SUM(wrong_results), SUM(survivors), SUM(left_armed), missed ? "\"" : "",
	       missed ? missed : "null", missed ? "\"" : "");
	print_latencies("cpu_ms", offsetof(struct worker, cpu));
	putchar(',');
	print_latencies("wall_ms", offsetof(struct worker, wall));
	printf(",\"heap_kb\":[%d,%d],\"rss_kb\":[%ld,%ld]}\n", heap_first_kb, heap_last_kb, rss_first_kb,
	       rss_kb());
	fflush(stdout);
	return !SUM(wrong_hits) && !SUM(wrong_results) && !SUM(survivors) && !SUM(left_armed) &&
	       !SUM(kills[GUARD_FINE]) && !missed;
}

static bool is_missed(struct worker *worker)
{
	int64_t entered_ns = atomic_load(&worker->entered_ns);
	clockid_t clock;
	if (!entered_ns || pthread_getcpuclockid(worker->thread, &clock))
		return false;
	int64_t wall_ns = clock_ns(CLOCK_MONOTONIC) - entered_ns,
		cpu_ns = clock_ns(clock) - atomic_load(&worker->entered_cpu_ns);
	return (cpu_ns > MISSED_S * INT64_C(1000000000) || wall_ns > MISSED_WALL_S * INT64_C(1000000000)) &&
	       atomic_load(&worker->entered_ns) == entered_ns;
}

/* The name of a call that does not come back, or NULL. */
static const char *find_missed(void)
{
	for (int w = 0; w < WORKERS; w++)
		if (is_missed(&workers[w]))
			return atomic_load(&workers[w].running);
	return NULL;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 0;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL);
	if (seconds <= 0) {
		fprintf(stderr, "usage: kill_soak SECONDS [SEED [WAY [MIX]]]\n");
		return 2;
	}
	bool has_way = argc > 3 && strcmp(argv[3], "-") != 0;
	const char *way = guard_start_with(has_way ? argv[3] : NULL), *missed = NULL;
	if (argc > 4)
		mix = argv[4];
	if (!way)
		die("the watchdog cannot be started, or that way does not work here");
	for (int w = 0; w < WORKERS; w++) {
		workers[w].seed = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)w;
		if (pthread_create(&workers[w].thread, NULL, work, &workers[w]))
			die("a thread cannot be started");
	}
	int64_t from_ns = clock_ns(CLOCK_MONOTONIC);
	double lasted = 0;
	long rss_first_kb = 0;
	while (lasted < seconds && !missed) {
		usleep(50000);
		lasted = (double)(clock_ns(CLOCK_MONOTONIC) - from_ns) / 1e9;
		if (!rss_first_kb && lasted > seconds / 10)
			rss_first_kb = rss_kb();
		missed = find_missed();
	}
	atomic_store(&is_over, true);
	if (missed) {
		report(lasted, seed, way, missed, rss_first_kb);
		abort();
	}
	for (int w = 0; w < WORKERS; w++)
		pthread_join(workers[w].thread, NULL);
	bool passed = report(lasted, seed, way, NULL, rss_first_kb);
	for (int w = 0; w < WORKERS; w++) {
		free(workers[w].cpu.us);
		free(workers[w].wall.us);
	}
	guard_stop();
	return !passed;
}
