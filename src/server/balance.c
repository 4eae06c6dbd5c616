#include "server/balance.h"

#include "worker/worker.h"

enum {
	HELD_UP_MS = 500, /* a worker that has not turned for so long is held up */
	LOOK_MS = 100,
};

static bool is_held_up(const struct worker *worker, uint64_t now_ms)
{
	uint64_t since_ms = worker_busy_since_ms(worker);
	return since_ms && now_ms >= since_ms + HELD_UP_MS;
}

static unsigned load_of(const struct worker *worker)
{
	return atomic_load_explicit(&worker->load, memory_order_relaxed);
}

/* Of those that turn, or with `all` of all; NULL: none turns. */
static struct worker *least_loaded(const struct balance *balance, bool all)
{
	struct worker *best = NULL;
	uint64_t now_ms = uv_now(balance->look.loop);
	for (unsigned i = 0; i < balance->worker_count; i++) {
		struct worker *worker = &balance->workers[(balance->next + i) % balance->worker_count];
		if (!all && is_held_up(worker, now_ms))
			continue;
		if (!best || load_of(worker) < load_of(best))
			best = worker;
	}
	return best;
}

static struct worker *find_taker(void *data, uint16_t slot)
{
	struct balance *balance = data;
	if (!balance->may_move(balance->owner, slot))
		return NULL;
	balance->next++;
	return least_loaded(balance, false);
}

static void on_look(uv_timer_t *timer)
{
	struct balance *balance = timer->data;
	bool any = false;
	for (unsigned i = 0; i < balance->worker_count; i++) {
		struct worker *worker = &balance->workers[i];
		bool waits = orders_wait(&worker->orders);
		any = any || waits;
		if (waits && is_held_up(worker, uv_now(timer->loop)))
			worker_give_away(worker, find_taker, balance);
	}
	if (!any)
		uv_timer_stop(timer);
}

void balance_open(struct balance *balance, uv_loop_t *loop, struct worker *workers, unsigned worker_count,
		  void *owner, bool (*may_move)(void *owner, uint16_t slot))
{
	*balance = (struct balance){
		.workers = workers, .worker_count = worker_count, .owner = owner, .may_move = may_move
	};
	uv_timer_init(loop, &balance->look);
	balance->look.data = balance;
	uv_unref((uv_handle_t *)&balance->look);
}

struct worker *balance_choose(struct balance *balance)
{
	struct worker *worker = least_loaded(balance, false);
	if (!worker)
		worker = least_loaded(balance, true);
	balance->next++;
	if (!uv_is_active((uv_handle_t *)&balance->look))
		uv_timer_start(&balance->look, on_look, LOOK_MS, LOOK_MS);
	return worker;
}

void balance_stop(struct balance *balance)
{
	uv_timer_stop(&balance->look);
}
