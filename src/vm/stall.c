#include "vm/stall.h"

#include "base/thread_state.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_MS INT64_C(1000000)

enum {
	LOOK_FROM_MS = 100, /* most calls are over by then, and cost nothing */
	LOOK_EVERY_MS = 10,
	GAP_MS =
	    100, /* of a longer time between two looks no more counts: the whole process may have been stopped */
	EVENTS = 64,
};

/* ---- events ---- */

static struct {
	pthread_mutex_t lock;
	void (*wake)(void *data);
	void *data;
	struct stall_event events[EVENTS];
	unsigned first, count;
} queue = { .lock = PTHREAD_MUTEX_INITIALIZER };

void stall_listen(void (*wake)(void *data), void *data)
{
	pthread_mutex_lock(&queue.lock);
	queue.wake = wake;
	queue.data = data;
	pthread_mutex_unlock(&queue.lock);
}

bool stall_take(struct stall_event *event)
{
	pthread_mutex_lock(&queue.lock);
	bool is_there = queue.count > 0;
	if (is_there) {
		*event = queue.events[queue.first];
		queue.first = (queue.first + 1) % EVENTS;
		queue.count--;
	}
	pthread_mutex_unlock(&queue.lock);
	return is_there;
}

/* Where nobody takes them the oldest go. */
static void stall_put(const struct stall_event *event)
{
	pthread_mutex_lock(&queue.lock);
	if (queue.wake) {
		if (queue.count == EVENTS) {
			queue.first = (queue.first + 1) % EVENTS;
			queue.count--;
		}
		queue.events[(queue.first + queue.count++) % EVENTS] = *event;
		queue.wake(queue.data);
	}
	pthread_mutex_unlock(&queue.lock);
}

/* ---- the watchdog ---- */

static void stall_begin(struct stall *stall, int64_t now_ns)
{
	stall->event = (struct stall_event){
		.worker = stall->worker,
		.generation = stall->generation,
		.callback = atomic_load_explicit(&stall->callback, memory_order_relaxed),
		.conn = atomic_load_explicit(&stall->conn, memory_order_relaxed),
		.ms = (uint64_t)((now_ns - stall->seen_ns) / NS_PER_MS),
	};
	atomic_store_explicit(&stall->stalled, stall->seen, memory_order_relaxed);
	stall_put(&stall->event);
}

static void stall_end(struct stall *stall, int64_t now_ns)
{
	uint64_t stalled = atomic_load_explicit(&stall->stalled, memory_order_relaxed);
	stall->event.is_over = true;
	stall->event.ms = (uint64_t)((now_ns - stall->seen_ns) / NS_PER_MS);
	if (atomic_load_explicit(&stall->placed, memory_order_acquire) == stalled)
		memcpy(stall->event.place, stall->place, sizeof stall->place);
	atomic_store_explicit(&stall->stalled, 0, memory_order_relaxed);
	stall_put(&stall->event);
}

static bool has_stalled(const struct stall *stall)
{
	return atomic_load_explicit(&stall->stalled, memory_order_relaxed);
}

static void look_closer(struct stall *stall, int64_t now_ns)
{
	int64_t gap_ns = now_ns - stall->looked_ns;
	stall->looked_ns = now_ns;
	struct thread_state state;
	if (thread_read(stall->thread, &state) && state.is_asleep)
		stall->asleep_ns += gap_ns < GAP_MS * NS_PER_MS ? gap_ns : GAP_MS * NS_PER_MS;
	if (stall->asleep_ns >= STALL_MS * NS_PER_MS)
		stall_begin(stall, now_ns);
}

void stall_look(struct stall *stall, uint64_t dispatch, int64_t now_ns)
{
	if (dispatch != stall->seen) {
		if (has_stalled(stall))
			stall_end(stall, now_ns);
		stall->seen = dispatch;
		stall->seen_ns = stall->looked_ns = now_ns;
		stall->asleep_ns = 0;
		return;
	}
	if (!dispatch || stall->worker == STALL_NOBODY || has_stalled(stall) ||
	    now_ns - stall->seen_ns < LOOK_FROM_MS * NS_PER_MS ||
	    now_ns - stall->looked_ns < LOOK_EVERY_MS * NS_PER_MS)
		return;
	look_closer(stall, now_ns);
}

/* ---- the thread ---- */

void stall_find_place(lua_State *lua, char *place, size_t size)
{
	enum { LEVELS = 8 };
	lua_Debug ar;
	*place = '\0';
	for (int level = 0; level < LEVELS && lua_getstack(lua, level, &ar); level++) {
		if (!lua_getinfo(lua, "Sl", &ar) || ar.currentline <= 0)
			continue;
		if (*ar.source != '@') /* the loop over a batch, or what load() was given */
			continue;
		bool is_ours = strstr(ar.source, "/lua/perilune/");
		if (!is_ours || !*place)
			snprintf(place, size, "%s:%d", ar.short_src, ar.currentline);
		if (!is_ours)
			return;
	}
}

void stall_note_place(struct stall *stall, uint64_t dispatch, lua_State *lua)
{
	if (atomic_load_explicit(&stall->stalled, memory_order_relaxed) != dispatch ||
	    atomic_load_explicit(&stall->placed, memory_order_relaxed) == dispatch)
		return;
	stall_find_place(lua, stall->place, sizeof stall->place);
	atomic_store_explicit(&stall->placed, dispatch, memory_order_release);
}
