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

int balance_find(unsigned count, unsigned next, bool (*load_of)(const void *data, unsigned i, unsigned *load),
		 const void *data)
{
	int best = -1;
	unsigned least = 0, load;
	for (unsigned n = 0; n < count; n++) {
		unsigned i = (next + n) % count;
		if (!load_of(data, i, &load) || (best >= 0 && load >= least))
			continue;
		best = (int)i;
		least = load;
	}
	return best;
}

/* A search among the workers. */
struct search {
	const struct balance *balance;
	uint64_t now_ms;
	bool all; /* also those that do not turn */
};

static bool load_of_worker(const void *data, unsigned i, unsigned *load)
{
	const struct search *search = data;
	const struct worker *worker = &search->balance->workers[i];
	if (!search->all && is_held_up(worker, search->now_ms))
		return false;
	*load = atomic_load_explicit(&worker->load, memory_order_relaxed);
	return true;
}

/* Of those that turn, or with `all` of all; NULL: none turns. */
static struct worker *least_loaded(const struct balance *balance, bool all)
{
	const struct search search = { balance, uv_now(balance->look.loop), all };
	int found = balance_find(balance->worker_count, balance->next, load_of_worker, &search);
	return found < 0 ? NULL : &balance->workers[found];
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
