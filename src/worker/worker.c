#include "worker/worker.h"

#include "agent/job.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/thread_state.h"
#include "base/ticks.h"
#include "config/config.h"
#include "loop/loop.h"
#include "stream/socket.h"
#include "worker/flows.h"
#include "worker/generations.h"
#include "worker/handover.h"
#include "worker/outgoing.h"
#include "worker/succession.h"
#include "worker/taping.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
	LOOK_EVERY_MS = 1000,
	PACE_EVERY_MS = 100,
	TIDY_STEP_KB = 64,
};

struct accept_order {
	struct order order; /* first */
	int fd;
	uint16_t slot; /* of the listener */
	uint64_t id;
	bool to_candidate, is_counted;
	struct sockaddr_in6 peer;
};

struct policy_order {
	struct order order; /* first */
	enum reload_policy policy;
};

/* ---- connections ---- */

static struct worker *worker_of_conn(const struct conn *conn)
{
	return (struct worker *)(void *)((char *)conn->host - offsetof(struct worker, host));
}

/* It is read by the main thread, which decides about the candidate. */
static void worker_note_failure(struct worker *worker, struct generation *generation)
{
	unsigned failed = atomic_load_explicit(&generation->failed, memory_order_relaxed);
	atomic_store_explicit(&generation->failed, failed + 1, memory_order_release);
	if (generation == worker->candidate)
		worker->links.failed(worker->links.server);
}

static void worker_on_left(struct conn *conn)
{
	struct worker *worker = worker_of_conn(conn);
	if (reason_is_fault((enum close_reason)conn->reason))
		worker_note_failure(worker, conn->first.agents);
	worker->links.left(worker->links.server, conn->endpoint->slot, conn->counted ? &conn->peer : NULL);
}

/* Of one that has come by a proxy, which does not count itself. */
static void worker_on_admit(struct conn *conn)
{
	const struct worker_links *links = &worker_of_conn(conn)->links;
	const struct agents *agents = conn->first.agents;
	const struct listener_config *config = &agents->instance.config->listeners[conn->endpoint->index];
	if (conn->counted)
		return;
	conn->counted = links->count_in(links->server, conn->endpoint->slot, &conn->peer, config->per_ip);
	if (!conn->counted)
		conn_refuse(conn, "per_ip", config->reject, config->reject_bytes);
}

/* Flows have no descriptors. */
static void on_closes(struct conn *conn)
{
	if (conn->endpoint->has_datagrams)
		return;
	struct worker *worker = worker_of_conn(conn);
	worker->links.closes(worker->links.server);
}

static uint64_t worker_read_clock(struct conn_host *host)
{
	struct worker *worker = (struct worker *)(void *)((char *)host - offsetof(struct worker, host));
	uv_update_time(&worker->loop);
	host->clock_ticks = ticks_now();
	return host->now_ms = uv_now(&worker->loop);
}

static uint64_t worker_after(struct conn_host *host, uint32_t ms)
{
	enum { NS_PER_MS = 1000 * 1000 };
	(void)host;
	return (uv_hrtime() + NS_PER_MS - 1) / NS_PER_MS + ms;
}

static void worker_on_gone(struct conn *conn)
{
	struct worker *worker = worker_of_conn(conn);
	worker->links.gone(worker->links.server);
	atomic_fetch_sub_explicit(&worker->load, 1, memory_order_relaxed);
	agents_count(conn->first.agents, (size_t)-1);
	free(conn);
}

static void refuse_accepted(struct worker *worker, const struct accept_order *order)
{
	count(&worker->counters.closed[REASON_MEMORY]);
	worker->links.left(worker->links.server, order->slot, order->is_counted ? &order->peer : NULL);
	worker->links.closes(worker->links.server);
	worker->links.gone(worker->links.server);
	atomic_fetch_sub_explicit(&worker->load, 1, memory_order_relaxed);
}

/* The layers of its stream lie behind it. */
struct carried {
	struct conn conn; /* first */
	struct socket_stream socket;
};

static struct conn *carry(struct worker *worker, const struct accept_order *order, stream_layers layers)
{
	struct carried *carried = calloc(1, sizeof *carried + layers_bytes(layers));
	if (!carried)
		return NULL;
	socket_stream_start(&carried->socket, &carried->conn.io, &worker->poller, order->fd,
			    order->peer.sin6_family == AF_UNIX);
	layers_init(layers, carried + 1, &carried->conn.io);
	carried->conn.peer = order->peer;
	carried->conn.counted = order->is_counted;
	return &carried->conn;
}

/* It was accepted by a generation that knows of no proxies, and it is a proxy. */
static void give_count_back(struct worker *worker, struct conn *conn, uint16_t slot)
{
	worker->links.count_out(worker->links.server, slot, &conn->peer);
	conn->counted = false;
}

static void worker_accept_one(struct worker *worker, const struct accept_order *order)
{
	bool to_candidate = order->to_candidate && worker->candidate;
	struct generation *generation = to_candidate ? worker->candidate : worker->generation;
	/* Orders come in the order in which they were given: whoever came by a new listener, after its generation. */
	int listener = config_find_slot(generation->config, order->slot, order->slot);
	assert(listener >= 0);
	const struct endpoint *endpoint =
	    agents_endpoint(&generation->agents, (unsigned)listener, order->slot);
	struct conn *conn = carry(worker, order, endpoint->layers);
	if (!conn) {
		refuse_accepted(worker, order);
		close(order->fd);
		return;
	}
	if (endpoint->trust && conn->counted)
		give_count_back(worker, conn, order->slot);
	conn->first.agents = &generation->agents;
	agents_count(&generation->agents, 1);
	conn_open(conn, &worker->host, endpoint, order->id);
}

/* ---- generations ---- */

/* The generation that is to be adopted. */
static struct generation *generation_in(struct order *order)
{
	return (struct generation *)(void *)((char *)order - offsetof(struct generation, adopt));
}

/* The candidate that is to be promoted or withdrawn. */
static struct generation *candidate_in(struct order *order)
{
	return (struct generation *)(void *)((char *)order - offsetof(struct generation, verdict));
}

static void raise_share(struct worker *worker, const struct generation *generation)
{
	size_t least = generation_least_buffers(generation, worker->config->buffer_bytes);
	if (worker->host.pool.limit_bytes && worker->host.pool.limit_bytes < least)
		worker->host.pool.limit_bytes = least;
}

/* ---- evictions ---- */

static void evict(struct worker *worker, struct eviction *eviction)
{
	struct channel *channel = idmap_get(&worker->host.ids, eviction->conn);
	struct conn *conn = channel ? channel->conn : NULL;
	eviction->found = conn && !channel->ended && conn->state != CONN_LINGER && conn->state != CONN_CLOSED;
	if (eviction->found && channel->lone)
		channel_close(channel, REASON_KICK, CLOSE_FLUSH);
	else if (eviction->found)
		conn_close(conn, REASON_KICK, conn->state == CONN_OPEN ? CLOSE_FLUSH : CLOSE_NOW);
	worker_report(worker, &eviction->report, worker->links.receivers->evicted);
}

/* ---- mail ---- */

static void deliver_accept(struct worker *worker, struct order *order)
{
	worker_accept_one(worker, (const struct accept_order *)(const void *)order);
	free(order);
}

static void drop_accept(struct order *order)
{
	close(((struct accept_order *)(void *)order)->fd);
	free(order);
}

static void deliver_policy(struct worker *worker, struct order *order)
{
	generations_set_policy(worker, ((const struct policy_order *)(const void *)order)->policy);
	free(order);
}

static void drop_policy(struct order *order)
{
	free(order);
}

static void deliver_adopt(struct worker *worker, struct order *order)
{
	raise_share(worker, generation_in(order));
	generations_adopt(worker, generation_in(order));
}

static void drop_adopt(struct order *order)
{
	generation_close(generation_in(order));
}

static void deliver_promote(struct worker *worker, struct order *order)
{
	generations_promote(worker, candidate_in(order));
}

static void deliver_withdraw(struct worker *worker, struct order *order)
{
	generations_withdraw(worker, candidate_in(order));
}

static void deliver_hand_over(struct worker *worker, struct order *order)
{
	succession_tell(worker, (struct handover_part *)(void *)order);
}

static void deliver_drain(struct worker *worker, struct order *order)
{
	(void)order;
	flows_drain(worker);
	conn_host_drain(&worker->host, worker->config->drain_ms);
}

static void deliver_stop(struct worker *worker, struct order *order)
{
	(void)order;
	conn_host_cut(&worker->host);
	if (worker->out)
		conn_host_cut(worker->out);
}

static void deliver_evict(struct worker *worker, struct order *order)
{
	evict(worker, (struct eviction *)(void *)order);
}

static void deliver_snapshot_request(struct worker *worker, struct order *order)
{
	struct snapshot_request *request = (struct snapshot_request *)(void *)order;
	struct report *report = &request->report;
	report->worker = worker->index;
	assert(!worker->generation->agents.current);
	report->err = snapshot_take(&worker->generation->agents.instance, request->most, &request->snapshot,
				    report->text, sizeof report->text);
	request->answered(request);
}

static void deliver_record_no_more(struct worker *worker, struct order *order)
{
	(void)order;
	taping_end(worker);
}

/*
 * Hundreds may have been accepted at once, and opened() take long: the rest of the orders waits for the next turn.
 * True: there is one.
 */
static bool take_orders(struct worker *worker)
{
	if (!orders_wait(&worker->orders))
		return worker->owes_orders = false;
	uint64_t began = ticks_now();
	struct mail *mail;
	while (ticks_now() - began <= CONN_TICKS_PER_STAGE && (mail = orders_pop(&worker->orders))) {
		struct order *order = (struct order *)(void *)mail;
		order->deliver(worker, order); /* from here on it is the sender's again, or gone */
	}
	worker->owes_orders = orders_wait(&worker->orders);
	return worker->owes_orders;
}

static void worker_on_wake(uv_async_t *wake)
{
	struct worker *worker = wake->data;
	worker->host.now_ms = uv_now(&worker->loop);
	atomic_store_explicit(&worker->poked, false, memory_order_relaxed);
	if (!worker->owes_orders)
		take_orders(worker);
}

/* ---- turns ---- */

static uint64_t activity_of(const struct worker *worker)
{
	return count_read(&worker->counters.frames_in) + counters_closed(&worker->counters) +
	       count_read(&worker->counters.messages_delivered) + count_read(&worker->counters.hub_delivered);
}

/* The average frame since the last call. */
static size_t recent_frame_bytes(struct worker *worker)
{
	uint64_t frames = count_read(&worker->counters.frames_in),
		 bytes = count_read(&worker->counters.bytes_in);
	uint64_t more = frames - worker->paced_frames, size = more ? (bytes - worker->paced_bytes) / more : 0;
	worker->paced_frames = frames;
	worker->paced_bytes = bytes;
	return (size_t)size;
}

static void pace(struct worker *worker)
{
	size_t frame_bytes = recent_frame_bytes(worker);
	for (struct generation *each = worker->generation; each; each = each->older)
		vm_pace(&each->agents.vm, frame_bytes);
}

/* True: the newest generation has finished a cycle; the others are small, and were as often at it. */
static bool tidy_step(struct worker *worker)
{
	bool over = false;
	for (struct generation *each = worker->generation; each; each = each->older) {
		bool cycle = vm_collect_step(&each->agents.vm, TIDY_STEP_KB);
		over = over || (cycle && each == worker->generation);
	}
	return over;
}

/*
 * Gives the system what malloc() has free. A sanitizer has a malloc() of its own; two threads that wake the other
 * break it.
 */
static void trim_heap(void)
{
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
	malloc_trim(0);
#endif
}

/*
 * When a second has passed without anything happening, garbage is collected in small steps, and
 * memory that a burst left behind goes back to the system. True: there is more to tidy at once.
 */
static bool tidy(struct worker *worker)
{
	struct vm *vm = &worker->generation->agents.vm;
	vm_sample(vm);
	uint64_t now_ms = worker->host.now_ms, activity = activity_of(worker);
	if (activity != worker->activity) {
		if (now_ms - worker->paced_ms >= PACE_EVERY_MS) {
			worker->paced_ms = now_ms;
			pace(worker);
		}
		worker->activity = activity;
		worker->look_ms = now_ms + LOOK_EVERY_MS;
		worker->tidy_cycles = 2; /* the first may have begun before the garbage was made */
		return false;
	}
	if (!worker->tidy_cycles || now_ms < worker->look_ms)
		return false;
	worker->tidy_cycles -= tidy_step(worker);
	if (worker->tidy_cycles)
		return true;
	worker->look_ms = WHEEL_NEVER;
	buf_pool_trim(&worker->host.pool);
	for (struct generation *each = worker->generation; each; each = each->older) {
		vm_make_room_for_strings(&each->agents.vm);
		slab_trim(&each->agents.vm.slab);
	}
	trim_heap();
	return false;
}

static uint64_t worker_earliest(const struct worker *worker)
{
	uint64_t at = conn_host_next_ms(&worker->host), other;
	for (const struct generation *each = worker->generation; each; each = each->older)
		if ((other = agents_next_ms(&each->agents)) < at)
			at = other;
	if (worker->out && (other = conn_host_next_ms(worker->out)) < at)
		at = other;
	if ((other = succession_next_ms(worker)) < at)
		at = other;
	if ((other = taping_next_ms(worker)) < at)
		at = other;
	if (worker->tidy_cycles && worker->look_ms < at)
		at = worker->look_ms;
	return at;
}

/* What is due by the clock, and what was put off. True: there is more to do at once. */
static bool worker_turn(struct worker *worker)
{
	agent_jobs_over(worker->host.job_port);
	bool has_mail = post_collect(&worker->post);
	has_mail = audience_turn(&worker->audience) || has_mail;
	for (struct generation *each = worker->generation; each; each = each->older)
		agents_turn(&each->agents, worker->host.now_ms);
	bool more = take_orders(worker) || has_mail;
	more = succession_turn(worker) || more;
	if (worker->out)
		more = conn_host_turn(worker->out, worker->host.now_ms) || more;
	more = conn_host_turn(&worker->host, worker->host.now_ms) || more;
	for (struct generation *each = worker->generation; each; each = each->older)
		agents_report(&each->agents);
	if (worker->flows)
		flow_host_flush(worker->flows);
	taping_turn(worker);
	if (!taping_needs_agents(worker))
		generations_retire(worker);
	/* The end of a connection can be the answer to a call of this worker's, and nobody rings for that. */
	return tidy(worker) || more || post_has_mail(&worker->post) || audience_has_mail(&worker->audience);
}

/* For epoll_wait(): milliseconds, -1 for ever. What this turn has taken is past by then. */
static int wait_ms(struct worker *worker)
{
	uint64_t at = worker_earliest(worker);
	if (at == WHEEL_NEVER)
		return -1;
	if (at <= worker->host.now_ms)
		return 0;
	uint64_t now_ms = worker_read_clock(&worker->host);
	if (at <= now_ms)
		return 0;
	return at - now_ms < INT_MAX ? (int)(at - now_ms) : INT_MAX;
}

/* Waits, and serves what has happened: of sockets first, of libuv then. */
static void poll_events(struct worker *worker, int timeout_ms)
{
	struct conn_host *host = &worker->host;
	int meant_ms = poller_wait(&worker->poller, timeout_ms);
	uint64_t wanted_ms = meant_ms > 0 ? host->now_ms + (unsigned)meant_ms : UINT64_MAX;
	host->clock_ticks = ticks_now();
	host->polled_ms = host->now_ms = uv_now(&worker->loop);
	conn_host_waited(host, wanted_ms);
	if (worker->out)
		worker_outgoing_waited(worker, wanted_ms);
	poller_serve(&worker->poller);
	conn_host_settle(host);
	if (worker->out)
		conn_host_settle(worker->out);
	if (worker->flows)
		flow_host_flush(worker->flows);
	poller_run_loop(&worker->poller);
}

/* What the app has begun ends as well, before the worker does. True: there are no connections out any more. */
static bool end_outgoing(struct worker *worker)
{
	for (struct generation *each = worker->generation; each; each = each->older)
		agents_end_app(&each->agents);
	return worker_outgoing_end(worker);
}

/*
 * Agents without a socket are there for the connections of all workers, and so it stays as long as any. What ends last
 * is some worker's, who tells the others when it has nothing more itself; or a message on its way to one that it does
 * not make any more, and then it had nothing before: whoever sees the end first tells the others as well.
 */
static bool may_end(struct worker *worker)
{
	const struct worker_links *links = &worker->links;
	bool was_empty = worker->is_empty, knew_end = worker->knows_end;
	worker->is_empty = !worker->host.open && !worker->host.lone && !orders_wait(&worker->orders) &&
			   !post_has_mail(&worker->post) && !audience_has_mail(&worker->audience);
	if (!worker->is_empty || !worker->config->kind_count || worker->host.overdue)
		return worker->is_empty;
	worker->knows_end = !links->has_clients(links->server) && !names_have_kinds(links->names);
	if (!was_empty || (worker->knows_end && !knew_end))
		names_ring_all(links->names);
	return worker->knows_end;
}

static void worker_serve(struct worker *worker)
{
	for (;;) {
		bool more = worker_turn(worker);
		if (worker->flows)
			flow_host_forget(worker->flows);
		poller_forget(&worker->poller);
		if (worker->host.draining && may_end(worker) && end_outgoing(worker))
			return;
		poll_events(worker, more ? 0 : wait_ms(worker));
	}
}

/* ---- the thread ---- */

void worker_report(struct worker *worker, struct report *report,
		   void (*deliver)(void *server, struct report *report))
{
	report->deliver = deliver;
	report->worker = worker->index;
	worker->links.post(worker->links.server, report);
}

/* Its next turn looks for what has come. It is never read: each ring is a new edge. */
static void bell_on_ready(struct polled *bell, uint32_t events)
{
	(void)bell;
	(void)events;
}

static int open_bell(struct worker *worker)
{
	static const struct polled_ops BELL = { .ready = bell_on_ready };
	int fd = worker->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	polled_init(&worker->bell, &worker->poller, fd, &BELL);
	int err = poller_watch(&worker->bell, EPOLLIN);
	if (err)
		close(fd);
	return err;
}

static void close_wake(struct worker *worker)
{
	uv_close((uv_handle_t *)&worker->wake, NULL);
	uv_run(&worker->loop, UV_RUN_DEFAULT);
}

static int open_loop(struct worker *worker)
{
	int err = loop_open(&worker->loop);
	if (err)
		return err;
	err = uv_async_init(&worker->loop, &worker->wake, worker_on_wake);
	if (err)
		goto close_loop;
	worker->wake.data = worker;
	err = poller_init(&worker->poller, &worker->loop);
	if (err)
		goto close_wake;
	err = open_bell(worker);
	if (!err)
		return 0;
	poller_deinit(&worker->poller);
close_wake:
	close_wake(worker);
close_loop:
	uv_loop_close(&worker->loop);
	return err;
}

/* The bell stays open: others may ring it yet, and must not write to what is opened in its place. */
static void worker_close_loop(struct worker *worker)
{
	poller_release(&worker->bell);
	poller_deinit(&worker->poller);
	close_wake(worker);
}

static void close_generations(struct worker *worker)
{
	struct burials burials;
	struct generation *older, *each = worker->generation;
	burials_begin(&burials);
	for (; each; each = older) {
		older = each->older;
		burials_close(&burials, each);
	}
	burials_end(&burials);
}

/* Until it has been loaded, worker_call_off() ends its calls; from then on nothing but their budgets does. */
static struct generation *load_first(struct worker *worker, int *err, char *why, size_t size)
{
	guard_call_off_by(&worker->off);
	struct generation *generation = generation_open(&worker->host, worker->config, worker->index, 1,
							&worker->counters, worker->kept, err, why, size);
	guard_call_off_by(NULL);
	if (generation)
		generation_leave(generation);
	else if (atomic_load(&worker->off))
		*err = UV_ECANCELED;
	return generation;
}

static void worker_run(void *data)
{
	struct worker *worker = data;
	atomic_store_explicit(&worker->tid, thread_self(), memory_order_relaxed);
	size_t share = worker->config->buffer_bytes / worker->config->workers;
	char *why = worker->last_words.text;
	size_t size = sizeof worker->last_words.text;
	uint64_t now_ms = uv_now(&worker->loop);
	int err = conn_host_init(&worker->host, &AGENT_HANDLER, &worker->counters, share, now_ms);
	if (err) {
		limits_explain(err, why, size);
	} else {
		worker->host.clock_ms = worker_read_clock;
		worker->host.after_ms = worker_after;
		worker->host.opening_max = worker->config->handshakes;
		worker->host.last_further_id = CONN_FURTHER_IDS_OF(worker->index);
		worker->host.admit = worker_on_admit;
		worker->host.left = worker_on_left;
		worker->host.closes = on_closes;
		worker->host.gone = worker_on_gone;
		worker->host.dicts = worker->links.dicts;
		worker->host.all_counters = worker->links.counters;
		worker->host.job_port = worker->links.jobs ? &worker->job_port : NULL;
		post_open(&worker->post, worker->links.names, &worker->host, worker->index);
		names_open_box(worker->links.names, worker->index, worker);
		audience_open(&worker->audience, worker->links.hub, &worker->host, worker->index);
		hub_open_box(worker->links.hub, worker->index, worker, &worker->counters);
		worker->host.outgoing = worker_outgoing_new(worker);
		if (worker->host.outgoing)
			worker->generation = load_first(worker, &err, why, size);
		else
			limits_explain(err = UV_ENOMEM, why, size);
		if (!worker->generation) {
			worker_outgoing_free(worker);
			post_close(&worker->post);
			audience_close(&worker->audience);
			conn_host_deinit(&worker->host);
		}
	}
	if (!worker->generation) {
		worker_close_loop(worker);
		worker->last_words.err = err;
		worker_report(worker, &worker->last_words, worker->links.receivers->failed);
		return;
	}
	generation_join(worker->generation);
	worker->post.newest = &worker->generation->agents;
	atomic_store_explicit(&worker->generations, 1, memory_order_relaxed);
	raise_share(worker, worker->generation);
	generation_hold(worker->generation); /* the server's, which hears of it now */
	worker_report(worker, &worker->first_words, worker->links.receivers->ready);
	worker_serve(worker);
	succession_end(worker);
	taping_end(worker);
	flows_close(worker);
	worker_outgoing_free(worker);
	job_port_close(&worker->job_port);
	worker_close_loop(worker);
	close_generations(worker);
	post_close(&worker->post);
	audience_close(&worker->audience);
	conn_host_deinit(&worker->host);
	worker_report(worker, &worker->last_words, worker->links.receivers->stopped);
}

static void wake_for_jobs(struct job_port *port)
{
	worker_ring((char *)port - offsetof(struct worker, job_port));
}

int worker_start(struct worker *worker, struct config *config, unsigned index, struct worker_links links,
		 struct snapshot_source *kept)
{
	memset(worker, 0, sizeof *worker);
	worker->kept = kept;
	worker->config = config;
	worker->index = index;
	worker->links = links;
	worker->look_ms = WHEEL_NEVER;
	int err = orders_open(&worker->orders);
	if (err)
		return err;
	err = job_port_open(&worker->job_port, links.jobs, wake_for_jobs);
	if (!err)
		err = open_loop(worker);
	if (err)
		goto close_orders;
	err = thread_start(&worker->thread, THREAD_LUA_BYTES, worker_run, worker);
	if (!err)
		return 0;
	worker_close_loop(worker);
	close(worker->bell_fd);
	uv_loop_close(&worker->loop);
close_orders:
	orders_close(&worker->orders);
	return err;
}

/* ---- from other threads ---- */

int worker_give(struct worker *worker, int fd, uint16_t slot, uint64_t id, const struct sockaddr_in6 *peer,
		const struct sockaddr_in6 *counted, bool to_candidate)
{
	struct accept_order *order = malloc(sizeof *order);
	if (!order)
		return UV_ENOMEM;
	*order = (struct accept_order){ .order = { .deliver = deliver_accept, .drop = drop_accept },
					.fd = fd,
					.slot = slot,
					.id = id,
					.to_candidate = to_candidate,
					.is_counted = counted,
					.peer = *peer };
	atomic_fetch_add_explicit(&worker->load, 1, memory_order_relaxed);
	orders_push(&worker->orders, &order->order.mail);
	return 0;
}

static void move_load(struct worker *from, struct worker *to)
{
	atomic_fetch_sub_explicit(&from->load, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&to->load, 1, memory_order_relaxed);
}

/* Whom an order to accept a connection goes to instead. */
struct choice {
	const struct worker *from;
	struct worker *(*taker)(void *owner, uint16_t slot);
	void *owner;
	struct worker *to;
};

static bool has_taker(void *data, struct mail *mail)
{
	struct choice *choice = data;
	const struct accept_order *order = (struct accept_order *)(void *)mail;
	choice->to =
	    order->order.deliver == deliver_accept ? choice->taker(choice->owner, order->slot) : NULL;
	return choice->to && choice->to != choice->from;
}

void worker_give_away(struct worker *worker, struct worker *(*taker)(void *owner, uint16_t slot), void *owner)
{
	struct choice choice = { worker, taker, owner, NULL };
	struct mail *mail;
	while ((mail = orders_take_back(&worker->orders, has_taker, &choice))) {
		move_load(worker, choice.to);
		orders_push(&choice.to->orders, mail);
		worker_kick(choice.to);
	}
}

void worker_kick(struct worker *worker)
{
	uv_async_send(&worker->wake);
}

void worker_ring(void *data)
{
	const struct worker *worker = data;
	const uint64_t once = 1;
	ssize_t n;
	do
		n = write(worker->bell_fd, &once, sizeof once);
	while (n < 0 && errno == EINTR);
}

bool worker_poke(struct worker *worker)
{
	bool answered = !atomic_exchange_explicit(&worker->poked, true, memory_order_relaxed);
	worker_kick(worker);
	return answered;
}

/* The orders are the worker's own, so that giving them cannot fail; each is given once. */
static void send_order(struct worker *worker, struct order *order,
		       void (*deliver)(struct worker *worker, struct order *order))
{
	if (order->given)
		return;
	order->given = true;
	order->deliver = deliver;
	orders_push(&worker->orders, &order->mail);
	worker_kick(worker);
}

void worker_adopt(struct worker *worker, struct generation *generation)
{
	generation->adopt.drop = drop_adopt;
	send_order(worker, &generation->adopt, deliver_adopt);
}

void worker_promote(struct worker *worker, struct generation *candidate)
{
	send_order(worker, &candidate->verdict, deliver_promote);
}

void worker_withdraw(struct worker *worker, struct generation *candidate)
{
	send_order(worker, &candidate->verdict, deliver_withdraw);
}

int worker_set_policy(struct worker *worker, enum reload_policy policy)
{
	struct policy_order *order = malloc(sizeof *order);
	if (!order)
		return UV_ENOMEM;
	*order = (struct policy_order){ .order = { .deliver = deliver_policy, .drop = drop_policy },
					.policy = policy };
	orders_push(&worker->orders, &order->order.mail);
	worker_kick(worker);
	return 0;
}

void worker_hand_over(struct worker *worker, struct handover_part *part)
{
	send_order(worker, &part->order, deliver_hand_over);
}

void worker_evict(struct worker *worker, struct eviction *eviction)
{
	eviction->order.deliver = deliver_evict;
	orders_push(&worker->orders, &eviction->order.mail);
	worker_kick(worker);
}

void worker_ask_snapshot(struct worker *worker, struct snapshot_request *request)
{
	request->order.deliver = deliver_snapshot_request;
	orders_push(&worker->orders, &request->order.mail);
	worker_kick(worker);
}

static bool is_request(void *data, struct mail *mail)
{
	return mail == &((struct snapshot_request *)data)->order.mail;
}

bool worker_take_request_back(struct worker *worker, struct snapshot_request *request)
{
	return orders_take_back(&worker->orders, is_request, request);
}

void worker_record(struct worker *worker, struct taping *taping)
{
	send_order(worker, &taping->begin, taping_begin);
}

void worker_record_no_more(struct worker *worker, struct taping *taping)
{
	send_order(worker, &taping->end, deliver_record_no_more);
}

void worker_call_off(struct worker *worker)
{
	atomic_store(&worker->off, 1);
	guard_look();
}

void worker_drain(struct worker *worker)
{
	send_order(worker, &worker->drain, deliver_drain);
}

void worker_stop(struct worker *worker)
{
	send_order(worker, &worker->stop, deliver_stop);
}

void worker_drop_orders(struct worker *worker)
{
	struct mail *mail;
	while ((mail = orders_pop(&worker->orders))) {
		struct order *order = (struct order *)(void *)mail;
		if (order->drop)
			order->drop(order);
	}
}

void worker_join(struct worker *worker)
{
	uv_thread_join(&worker->thread);
	uv_loop_close(&worker->loop);
	worker_drop_orders(worker);
	orders_close(&worker->orders);
	post_drop_rest(&worker->post);
	audience_drop_rest(&worker->audience);
	close(worker->bell_fd);
}
