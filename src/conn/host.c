/* What the connections of one worker share: deadlines, buffers, turns. */
#include "base/log.h"
#include "conn/internal.h"

#include <stdlib.h>
#include <uv.h>

enum { HOST_KEPT_BUFFERS = 32 };

int conn_host_init(struct conn_host *host, const struct conn_handler *handler, struct counters *counters,
		   size_t buffer_limit_bytes, uint64_t now_ms)
{
	*host = (struct conn_host){ .handler = handler, .counters = counters, .now_ms = now_ms };
	host->turn_ticks = CHANNEL_TICKS_PER_TURN;
	host->attention_tail = &host->attention;
	host->last_further_id = CONN_FURTHER_IDS_OF(0);
	host->scratch = malloc(CONN_SCRATCH_BYTES);
	if (!host->scratch)
		return UV_ENOMEM;
	wheel_init(&host->wheel, now_ms);
	idmap_init(&host->ids);
	buf_pool_init(&host->pool, buffer_limit_bytes, HOST_KEPT_BUFFERS);
	host->batch.pool = &host->pool;
	return 0;
}

void conn_host_deinit(struct conn_host *host)
{
	buf_pool_deinit(&host->pool);
	idmap_deinit(&host->ids);
	free(host->scratch);
	host->scratch = NULL;
}

void host_forget(struct conn *conn)
{
	struct conn_host *host = conn->host;
	idmap_remove(&host->ids, conn->first.id);
	protocol_end(conn);
	host->open--;
	host->gone(conn);
}

void conn_attend(struct conn *conn)
{
	struct conn_host *host = conn->host;
	if (conn->queued)
		return;
	conn->queued = true;
	conn->next_attention = NULL;
	*host->attention_tail = conn;
	host->attention_tail = &conn->next_attention;
}

/*
 * Replies that have waited for handlers of others leave late, and only then is it their peers' turn again. Who has
 * sent no whole frame in this poll has had its turn all the while.
 */
static void begin_late(struct conn_host *host)
{
	uint64_t now_ms = host_now(host);
	for (unsigned i = 0; i < host->unsettled_count; i++)
		if (host->unsettled[i]->idle_since_ms >= host->polled_ms)
			host->unsettled[i]->idle_since_ms = now_ms;
}

void conn_host_settle(struct conn_host *host)
{
	if (host->unsettled_count)
		begin_late(host);
	for (unsigned i = 0; i < host->unsettled_count; i++) {
		host->current = host->unsettled[i];
		conn_settle(host->current);
	}
	host->current = NULL;
	host->unsettled_count = 0;
	host->unsettled_bytes = 0;
}

void conn_host_waited(struct conn_host *host, uint64_t wanted_ms)
{
	uint64_t held_ms = host->now_ms > wanted_ms ? host->now_ms - wanted_ms : 0;
	if (held_ms < CONN_HELD_MS) {
		if (host->now_ms >= host->grace_until_ms)
			host->grace_given_ms = 0;
		return;
	}
	/* Where every wait is that late, one grace would follow the other, and nobody ever time out. */
	uint64_t left_ms = CONN_GRACE_MAX_MS - host->grace_given_ms;
	uint64_t grace_ms = held_ms < left_ms ? held_ms : left_ms;
	host->grace_given_ms += grace_ms;
	host->grace_until_ms = host->now_ms + grace_ms;
}

static struct conn *host_conn_of(struct wheel_node *timer)
{
	return (struct conn *)(void *)((char *)timer - offsetof(struct conn, timer));
}

/* Thousands may be due at once, and have frames to be served first: the rest of them waits for the next turn. */
static void serve_deadlines(struct conn_host *host)
{
	struct wheel_node due, *node;
	uint64_t now_ms = host->now_ms, began = ticks_now(), taken = 0;
	wheel_advance(&host->wheel, now_ms, &due);
	while ((node = wheel_pop(&due))) {
		if (ticks_now() - began > host_stage_ticks(host) || taken > host_stage_ticks(host)) {
			wheel_arm(&host->wheel, node, now_ms);
			continue;
		}
		host->current = host_conn_of(node);
		taken -= host->current->first.handler_ticks;
		deadline_fire(host->current);
		conn_settle(host->current);
		taken += host->current->first.handler_ticks;
	}
	host->current = NULL;
}

/* Those from `conn` on have not been served, and come first the next time. `end` is where they end. */
static void put_back(struct conn_host *host, struct conn *conn, struct conn **end)
{
	*end = host->attention;
	if (!host->attention)
		host->attention_tail = end;
	host->attention = conn;
}

/*
 * All may have ended in one moment, and be told so, or come back for frames that take long: when they have taken their
 * time together, what has arrived meanwhile is looked at.
 */
static void serve_queued(struct conn_host *host)
{
	struct conn *next, *conn = host->attention, **end = host->attention_tail;
	uint64_t taken = 0;
	host->attention = NULL;
	host->attention_tail = &host->attention;
	for (; conn && taken <= host_stage_ticks(host); conn = next) {
		next = conn->next_attention;
		conn->queued = false;
		if (conn->gone) {
			host_forget(conn);
			continue;
		}
		host->current = conn;
		taken -= conn->first.handler_ticks;
		if (input_may_deliver(conn))
			input_feed(conn);
		conn_settle(conn);
		taken += conn->first.handler_ticks;
	}
	host->current = NULL;
	if (conn)
		put_back(host, conn, end);
}

struct conn *conn_host_at(const struct conn_host *host, size_t slot)
{
	struct channel *channel = host->ids.slots[slot].value;
	return channel && channel == &channel->conn->first ? channel->conn : NULL;
}

void conn_host_each(struct conn_host *host, void (*visit)(struct conn *conn))
{
	for (size_t i = 0; i < host->ids.capacity; i++) {
		struct conn *conn = conn_host_at(host, i);
		if (conn)
			visit(conn);
	}
}

/* When the drain of all ends what is left. */
static uint64_t drain_ms(const struct conn_host *host)
{
	return host->draining && !host->overdue ? host->drain_deadline_ms : WHEEL_NEVER;
}

bool conn_host_turn(struct conn_host *host, uint64_t now_ms)
{
	/* Whoever was served before may have read the clock anew. */
	if (now_ms > host->now_ms)
		host->now_ms = now_ms;
	host->opening_ticks = 0;
	serve_deadlines(host);
	serve_queued(host);
	if (host->now_ms >= drain_ms(host))
		conn_host_end_drain(host);
	return host->attention;
}

uint64_t conn_host_next_ms(const struct conn_host *host)
{
	if (host->attention)
		return host->now_ms;
	uint64_t wheel_ms = wheel_next_ms(&host->wheel), end_ms = drain_ms(host);
	return wheel_ms < end_ms ? wheel_ms : end_ms;
}

static size_t held_by(const struct conn *conn)
{
	const struct protocol_ops *ops = conn->protocol->ops;
	size_t own = ops->held ? ops->held(&conn->session) : 0;
	return own + (conn->in ? conn->in->cap : 0) + (conn->out.bytes ? conn->out.bytes->cap : 0);
}

/* Whoever holds most buffer. O(connections), and only when the memory for buffers is used up. */
static struct conn *fattest(const struct conn_host *host)
{
	struct conn *found = NULL;
	size_t most = 0;
	for (size_t i = 0; i < host->ids.capacity; i++) {
		struct conn *conn = conn_host_at(host, i);
		size_t held = conn ? held_by(conn) : 0;
		if (held > most) {
			most = held;
			found = conn;
		}
	}
	return found;
}

static void log_evicted(struct conn_host *host)
{
	enum { EVICTED_LOG_EVERY_MS = 10000 };
	if (!seldom_is_due(&host->evicted, host->now_ms, EVICTED_LOG_EVERY_MS))
		return;
	log_write(LOG_WARN, "connections are ended: the memory for buffers is used up",
		  F_TEXT("limit", "limits.buffers"), F_INT("worker_bytes", host->pool.limit_bytes),
		  F_INT("ended", seldom_take(&host->evicted) + 1),
		  F_TEXT("hint", "raise it, or lower limits.connections"));
}

void host_evict(struct conn *conn)
{
	if (conn->reason == REASON_NONE)
		log_evicted(conn->host);
	conn_close(conn, REASON_MEMORY, CLOSE_NOW);
}

bool host_relieve(struct conn_host *host, struct conn *conn, const struct buf *wanting, size_t n)
{
	struct conn *victim = fattest(host);
	/* Who asks for more than anybody holds is the one to go; neighbours could die in vain for it. */
	if (!victim || held_by(victim) < held_by(conn) + n || !buf_could_hold(&host->pool, wanting, n))
		return false;
	/* Whoever is being served may have frames that point into its buffer. */
	if (victim == conn || victim == host->current)
		return false;
	host_evict(victim);
	input_drop(victim, buf_len(victim->in));
	buf_release(&host->pool, &victim->in);
	outq_release(&victim->out, &host->pool);
	if (victim->protocol->ops->shed)
		victim->protocol->ops->shed(victim->protocol, &victim->session);
	victim->blocked = false;
	return true;
}
