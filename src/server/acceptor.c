#include "server/acceptor.h"

#include "base/descriptors.h"
#include "base/log.h"
#include "net/address.h"
#include "server/datagrams.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	ACCEPTS_PER_EVENT = 128, /* then the other listeners have their turn */
	STARVED_MS = 100,        /* pause after EMFILE and its kin */
	CLIENTS_FAULTS_MAX = 16, /* in a row; more are not the clients' */
	LOG_EVERY_MS = 1000,     /* at most one line a second of each kind */
	SPLIT_WHOLE = 1000000000,
	SPARE_DESCRIPTORS = 8, /* for refusing, for log files, for what handlers open */
};

static struct acceptor *owner_of(struct listener *listener)
{
	return listener->owner;
}

/* The listener that has a place in the configuration. */
static struct listener *listener_at(const struct acceptor *acceptor, const struct config *config, unsigned i)
{
	return acceptor->listeners->slots[config->listeners[i].slot];
}

/* ---- descriptors ---- */

static unsigned descriptors_in_use(void)
{
	enum { NEAREST = 4096 };
	unsigned n = 0;
	DIR *dir = opendir("/proc/self/fd");
	if (!dir) { /* not mounted */
		for (int fd = 0; fd < NEAREST; fd++)
			n += fcntl(fd, F_GETFD) >= 0;
		return n;
	}
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

void acceptor_raise_descriptor_limit(void)
{
	(void)descriptors_raise_limit();
}

static void set_budget(struct acceptor *acceptor, const struct config *config)
{
	unsigned limit = descriptors_raise_limit(), used = descriptors_in_use() + SPARE_DESCRIPTORS;
	uint64_t wanted = 0;
	acceptor->descriptor_budget = limit > used ? limit - used : 1;
	for (unsigned i = 0; i < config->listener_count; i++)
		if (config->listeners[i].kind != LISTENER_UDP) /* flows have none */
			wanted += config->listeners[i].connections;
	if (wanted > acceptor->descriptor_budget)
		log_write(LOG_WARN, "fewer connections than configured: the limit of open files is too low",
			  F_INT("connections", acceptor->descriptor_budget), F_INT("configured", wanted),
			  F_INT("nofile", limit));
}

/* ---- refusing ---- */

/* One line a second and listener; each says how many there have been. */
void acceptor_log_refusal(struct listener *listener, const char *name, const struct sockaddr_in6 *peer,
			  const char *limit, uint64_t now_ms)
{
	char text[ADDRESS_TEXT_BYTES];
	uint64_t refused = atomic_fetch_add_explicit(&listener->refused, 1, memory_order_relaxed) + 1;
	if (listener->refused_logged_ms && now_ms - listener->refused_logged_ms < LOG_EVERY_MS)
		return;
	listener->refused_logged_ms = now_ms ? now_ms : 1;
	log_write(
	    LOG_WARN, "connection refused", F_TEXT("reason", "limit"), F_TEXT("limit", limit),
	    F_TEXT("peer", address_text((const struct sockaddr *)(const void *)peer, text, sizeof text)),
	    F_TEXT("listener", name), F_INT("refused", refused));
}

/* Who waits for a handshake would take the text for one; and a stranger, for whom there is a proxy, is told nothing. */
static bool would_understand(const struct listener_config *config, const struct sockaddr_in6 *peer)
{
	return !config->tls && (config->proxy == PROXY_OFF || networks_have(&config->trust, peer));
}

/*
 * Tells the client why, if the script says so. What it may have sent already is read first: closing
 * with unread input would reset the connection, and the words be lost.
 */
static void acceptor_refuse(struct listener *listener, int fd, const struct sockaddr_in6 *peer,
			    const char *why)
{
	const struct listener_config *config = listener->config;
	char ignored[4096];
	count(&owner_of(listener)->counters.closed[REASON_LIMIT]);
	acceptor_log_refusal(listener, config->name, peer, why, uv_now(owner_of(listener)->loop));
	if (config->reject && would_understand(config, peer) &&
	    send(fd, config->reject, config->reject_bytes, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
		shutdown(fd, SHUT_WR);
		for (int i = 0; i < 16 && recv(fd, ignored, sizeof ignored, MSG_DONTWAIT) > 0; i++)
			;
	}
	close(fd);
}

/* ---- admission ---- */

static struct peer_key key_of_peer(const struct sockaddr_in6 *peer)
{
	return peer_key_of((const struct sockaddr *)(const void *)peer);
}

/* Whose address counts, or NULL: who stands behind a proxy is known later (acceptor_count_in()). */
static const struct sockaddr_in6 *whose(const struct listener *listener, const struct sockaddr_in6 *peer)
{
	return listener->config->proxy == PROXY_OFF ? peer : NULL;
}

/* Why the client may not come in, or NULL: it is counted in. */
static const char *acceptor_admit(struct listener *listener, const struct sockaddr_in6 *peer)
{
	struct acceptor *acceptor = owner_of(listener);
	const struct listener_config *config = listener->config;
	if (atomic_load_explicit(&acceptor->descriptors, memory_order_relaxed) >= acceptor->descriptor_budget)
		return "open files";
	uint32_t open = atomic_load_explicit(&listener->open, memory_order_relaxed);
	struct peer_key key = key_of_peer(whose(listener, peer));
	const char *limit = admission_limit(open, config->connections, listener->peers, key, config->per_ip);
	if (limit)
		return limit;
	atomic_fetch_add_explicit(&listener->open, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&acceptor->open, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&acceptor->descriptors, 1, memory_order_relaxed);
	return NULL;
}

void acceptor_left(struct acceptor *acceptor, uint16_t slot, const struct sockaddr_in6 *peer)
{
	struct listener *listener = acceptor->listeners->slots[slot];
	if (listener->peers)
		peer_table_leave(listener->peers, key_of_peer(peer));
	/* The last look at it: it may be freed now (listeners_sweep()). */
	atomic_fetch_sub_explicit(&listener->open, 1, memory_order_release);
}

bool acceptor_count_in(struct acceptor *acceptor, uint16_t slot, const struct sockaddr_in6 *peer,
		       uint32_t per_ip)
{
	struct peer_table *peers = acceptor->listeners->slots[slot]->peers;
	return !peers || peer_table_enter(peers, key_of_peer(peer), per_ip ? per_ip : UINT32_MAX);
}

void acceptor_count_out(struct acceptor *acceptor, uint16_t slot, const struct sockaddr_in6 *peer)
{
	struct peer_table *peers = acceptor->listeners->slots[slot]->peers;
	if (peers)
		peer_table_leave(peers, key_of_peer(peer));
}

void acceptor_closes(struct acceptor *acceptor)
{
	atomic_fetch_sub_explicit(&acceptor->descriptors, 1, memory_order_relaxed);
}

bool acceptor_gone(struct acceptor *acceptor)
{
	return atomic_fetch_sub(&acceptor->open, 1) == 1;
}

/* Whole numbers, so that nothing is lost over time. */
bool acceptor_is_candidates(struct listener *listener)
{
	struct acceptor *acceptor = owner_of(listener);
	uint32_t share = atomic_load_explicit(&acceptor->split_share, memory_order_relaxed);
	if (!share)
		return false;
	listener->split_due += share;
	if (listener->split_due < SPLIT_WHOLE)
		return false;
	listener->split_due -= SPLIT_WHOLE;
	atomic_fetch_add_explicit(&acceptor->split_conns, 1, memory_order_relaxed);
	return true;
}

static void acceptor_take_in(struct listener *listener, int fd, const struct sockaddr_in6 *peer, bool *given)
{
	struct acceptor *acceptor = owner_of(listener);
	count(&acceptor->counters.accepted);
	const char *why_not = acceptor_admit(listener, peer);
	if (why_not) {
		acceptor_refuse(listener, fd, peer, why_not);
		return;
	}
	struct worker *worker = balance_choose(&acceptor->balance);
	bool to_candidate = acceptor_is_candidates(listener);
	const struct sockaddr_in6 *counted = whose(listener, peer);
	if (worker_give(worker, fd, listener->slot, acceptor_next_id(acceptor), peer, counted,
			to_candidate)) {
		count(&acceptor->counters.closed[REASON_MEMORY]);
		acceptor_left(acceptor, listener->slot, counted);
		acceptor_closes(acceptor);
		acceptor_gone(acceptor);
		close(fd);
		return;
	}
	given[worker->index] = true;
}

/* ---- accepting, and pausing to accept ---- */

static void acceptor_on_pause_over(uv_timer_t *timer)
{
	struct listener *listener = timer->data;
	if (listener->fd >= 0)
		reactor_want(owner_of(listener)->reactor, &listener->watched, EPOLLIN);
}

/* Clients wait in the backlog meanwhile: nobody is dropped. */
static void pause_accepting(struct listener *listener, uint64_t ms)
{
	reactor_want(owner_of(listener)->reactor, &listener->watched, 0);
	uv_timer_start(&listener->pause, acceptor_on_pause_over, ms, 0);
}

static void starve(struct listener *listener, int err)
{
	struct acceptor *acceptor = owner_of(listener);
	uint64_t now_ms = uv_now(acceptor->loop);
	count(&acceptor->counters.accept_errors);
	if (!listener->error_logged_ms || now_ms - listener->error_logged_ms >= LOG_EVERY_MS) {
		listener->error_logged_ms = now_ms ? now_ms : 1;
		log_write(LOG_ERROR, "cannot accept: clients wait in the backlog",
			  F_TEXT("error", strerror(-err)), F_TEXT("listener", listener->config->name),
			  F_INT("accept_errors", count_read(&acceptor->counters.accept_errors)));
	}
	listener->faults_in_row = 0;
	pause_accepting(listener, STARVED_MS);
}

/*
 * The client's own doing, or a passing fault of its network: the next one may be fine (accept(2)). A
 * network that stays down, or a rule that forbids every accept, would make us spin.
 */
static bool is_clients_fault(int err)
{
	return err == UV_ECONNABORTED || err == UV_EINTR || err == UV_EPROTO || err == UV_ENETDOWN ||
	       err == UV_ENOPROTOOPT || err == UV_EHOSTDOWN || err == UV_ENONET || err == UV_EHOSTUNREACH ||
	       err == -EOPNOTSUPP || err == UV_ENETUNREACH || err == UV_EPERM;
}

/* 0: one client more, or less; else why there is nothing more to accept now. */
static int accept_next(struct listener *listener, bool *given)
{
	struct sockaddr_in6 peer;
	int fd = listener_accept(listener, &peer);
	if (fd >= 0) {
		listener->faults_in_row = 0;
		rate_take(&listener->rate, uv_now(owner_of(listener)->loop));
		acceptor_take_in(listener, fd, &peer, given);
		return 0;
	}
	return is_clients_fault(fd) && ++listener->faults_in_row < CLIENTS_FAULTS_MAX ? 0 : fd;
}

/* False: nothing more to accept now. */
static bool acceptor_accept_one(struct listener *listener, bool *given)
{
	struct acceptor *acceptor = owner_of(listener);
	uint64_t wait_ms = rate_wait_ms(&listener->rate, uv_now(acceptor->loop));
	if (wait_ms) {
		count(&acceptor->counters.accept_delays);
		pause_accepting(listener, wait_ms);
		return false;
	}
	int err = accept_next(listener, given);
	if (err && err != UV_EAGAIN)
		starve(listener, err);
	return !err;
}

static void kick(struct acceptor *acceptor, const bool *given)
{
	for (unsigned i = 0; i < acceptor->worker_count; i++)
		if (given[i])
			worker_kick(&acceptor->workers[i]);
}

static void on_listener(struct watched *watched, unsigned events)
{
	struct listener *listener = watched->data;
	struct acceptor *acceptor = owner_of(listener);
	bool given[256] = { false };
	(void)events;
	if (uv_is_active((uv_handle_t *)&listener->pause))
		return; /* an error of the socket is told whatever we wait for */
	for (int i = 0; i < ACCEPTS_PER_EVENT && acceptor_accept_one(listener, given); i++)
		;
	kick(acceptor, given);
}

/* ---- life ---- */

/*
 * Clients of a listener that is no more, or comes with the next generation, are for the worker that has been told so.
 */
static bool may_move(void *data, uint16_t slot)
{
	const struct acceptor *acceptor = data;
	return acceptor->listeners->slots[slot]->stage == LISTENER_ACCEPTING;
}

void acceptor_init(struct acceptor *acceptor, struct reactor *reactor, struct listeners *listeners,
		   struct worker *workers, unsigned worker_count)
{
	*acceptor = (struct acceptor){ .reactor = reactor,
				       .loop = reactor->loop,
				       .listeners = listeners,
				       .workers = workers,
				       .worker_count = worker_count,
				       .gate = { .fd = -1 },
				       .next_id = 1 };
	balance_open(&acceptor->balance, reactor->loop, workers, worker_count, acceptor, may_move);
}

static void acceptor_on_timer_closed(uv_handle_t *handle)
{
	struct listener *listener = handle->data;
	listener->has_timer = false;
}

/* No more than closes: the memory goes with its connections (listeners_sweep()). */
static void shut(struct listener *listener, atomic_uint *handing)
{
	datagrams_end(listener, handing);
	if (listener->has_timer) {
		reactor_remove(owner_of(listener)->reactor, &listener->watched);
		uv_close((uv_handle_t *)&listener->pause, acceptor_on_timer_closed);
	}
	listener_close(listener);
	listener->stage = LISTENER_GONE;
}

/* What may fail of accepting. 0 or an error. */
static int ready(struct acceptor *acceptor, struct listener *listener)
{
	const struct listener_config *config = listener->config;
	listener->owner = acceptor;
	rate_init(&listener->rate, config->accept_rate, uv_now(acceptor->loop));
	if (config->per_ip && !(listener->peers = peer_table_new()))
		return UV_ENOMEM;
	pthread_mutex_init(&listener->door, NULL);
	if (config->kind == LISTENER_UDP)
		return datagrams_ready(listener);
	listener->watched.ready = on_listener;
	listener->watched.data = listener->pause.data = listener;
	int err = reactor_add(acceptor->reactor, &listener->watched, listener->fd, 0);
	if (err)
		return err;
	uv_timer_init(acceptor->loop, &listener->pause);
	listener->has_timer = true;
	return 0;
}

static void start(struct listener *listener)
{
	listener->stage = LISTENER_ACCEPTING;
	if (listener->sockets && owner_of(listener)->gate.fd < 0)
		datagrams_start(listener, owner_of(listener)->workers);
	else if (!listener->sockets)
		reactor_want(owner_of(listener)->reactor, &listener->watched, EPOLLIN);
	log_write(LOG_INFO, "listening", F_TEXT("address", listener->address),
		  F_TEXT("listener", listener->config->name));
}

/* All that are bound, or none. 0 or an error. */
static int ready_all(struct acceptor *acceptor, const struct config *config)
{
	int err = 0;
	for (unsigned i = 0; !err && i < config->listener_count; i++)
		if (listener_at(acceptor, config, i)->stage == LISTENER_BOUND)
			err = ready(acceptor, listener_at(acceptor, config, i));
	return err;
}

/* Our predecessor reads no more. */
static void on_gate(struct watched *watched, unsigned events)
{
	struct acceptor *acceptor = watched->data;
	int fd = watched->fd;
	(void)events;
	reactor_remove(acceptor->reactor, watched);
	close(fd);
	watched->fd = -1;
	for (unsigned i = 0; i < LISTENER_SLOTS; i++) {
		struct listener *listener = acceptor->listeners->slots[i];
		if (listener && listener->sockets && listener->stage == LISTENER_ACCEPTING &&
		    !listener->is_read)
			datagrams_start(listener, acceptor->workers);
	}
}

static int watch_gate(struct acceptor *acceptor, int gate)
{
	acceptor->gate.ready = on_gate;
	acceptor->gate.data = acceptor;
	int err = gate < 0 ? 0 : reactor_add(acceptor->reactor, &acceptor->gate, gate, EPOLLIN);
	if (err)
		close(gate);
	return err;
}

int acceptor_start(struct acceptor *acceptor, const struct config *config, int gate)
{
	set_budget(acceptor, config);
	int err = watch_gate(acceptor, gate);
	if (!err)
		err = ready_all(acceptor, config);
	for (unsigned i = 0; !err && i < config->listener_count; i++)
		start(listener_at(acceptor, config, i));
	return err;
}

/* ---- other listeners ---- */

int acceptor_prepare(struct acceptor *acceptor, struct config *next, char *why, size_t size)
{
	if (listeners_add(acceptor->listeners, next, NULL, why, size))
		return -1;
	int err = ready_all(acceptor, next);
	if (!err)
		return 0;
	snprintf(why, size, "cannot accept: %s", uv_strerror(err));
	for (unsigned i = 0; i < next->listener_count; i++)
		if (listener_at(acceptor, next, i)->stage == LISTENER_BOUND)
			shut(listener_at(acceptor, next, i), NULL);
	return -1;
}

/* accept4() may want a descriptor before it looks whether there is a client at all. */
static bool is_awaited(const struct listener *listener)
{
	struct pollfd ready = { .fd = listener->fd, .events = POLLIN };
	return poll(&ready, 1, 0) > 0;
}

/*
 * Clients in the backlog are connected, and their requests may be in flight: closing the socket would reset
 * them, so they come in, however few a second may. No more than fit in the backlog, or a stream of
 * newcomers would put the end off.
 */
static void empty_backlog(struct listener *listener)
{
	bool given[256] = { false };
	struct acceptor *acceptor = owner_of(listener);
	int err = 0, most = listener->config->backlog + 1; /* what Linux lets wait */
	while (most-- > 0 && !err)
		err = accept_next(listener, given);
	kick(acceptor, given);
	if (!err || err == UV_EAGAIN || !is_awaited(listener))
		return;
	count(&acceptor->counters.accept_errors);
	log_write(LOG_ERROR, "cannot accept: clients in the backlog are lost",
		  F_TEXT("error", strerror(-err)), F_TEXT("listener", listener->config->name));
}

static void forget_split(struct listener *listener)
{
	pthread_mutex_lock(&listener->door);
	listener->split_due = 0;
	pthread_mutex_unlock(&listener->door);
}

void acceptor_split(struct acceptor *acceptor, double share)
{
	uint32_t parts = (uint32_t)(share * SPLIT_WHOLE + 0.5);
	atomic_store_explicit(&acceptor->split_share, share > 0 && !parts ? 1 : parts, memory_order_relaxed);
	atomic_store_explicit(&acceptor->split_conns, 0, memory_order_relaxed);
	for (unsigned i = 0; i < LISTENER_SLOTS; i++)
		if (acceptor->listeners->slots[i])
			forget_split(acceptor->listeners->slots[i]);
}

void acceptor_release(struct acceptor *acceptor, struct config *now, const struct config *next)
{
	for (unsigned i = 0; i < now->listener_count; i++) {
		struct listener *listener = listener_at(acceptor, now, i);
		if (config_find_slot(next, listener->slot, i) >= 0)
			continue;
		if (!listener->sockets)
			empty_backlog(listener);
		shut(listener, NULL);
		acceptor->descriptor_budget++;
		listener->held = now;
		config_hold(now);
		log_write(LOG_INFO, "no longer listening", F_TEXT("address", listener->address),
			  F_TEXT("listener", listener->config->name),
			  F_INT("open", atomic_load_explicit(&listener->open, memory_order_relaxed)));
	}
}

static void change_rate(struct listener *listener, double per_second)
{
	pthread_mutex_lock(&listener->door);
	rate_init(&listener->rate, per_second, uv_now(owner_of(listener)->loop));
	pthread_mutex_unlock(&listener->door);
}

void acceptor_configure(struct acceptor *acceptor, const struct config *config)
{
	for (unsigned i = 0; i < config->listener_count; i++) {
		struct listener *listener = listener_at(acceptor, config, i);
		const struct listener_config *next = &config->listeners[i];
		if (listener->stage == LISTENER_BOUND) {
			acceptor->descriptor_budget -= acceptor->descriptor_budget > 1;
			start(listener);
			continue;
		}
		if (next->accept_rate != listener->config->accept_rate)
			change_rate(listener, next->accept_rate);
		listener_configure(listener, next);
	}
}

/* ---- files that are gone ---- */

/* Who has reached the old socket comes in. */
static void renew(struct acceptor *acceptor, struct listener *listener)
{
	struct listener fresh;
	const struct listener_config *config = listener->config;
	bool is_paused = uv_is_active((uv_handle_t *)&listener->pause);
	char why[512];
	int err = listener_renew(listener, &fresh, why, sizeof why);
	if (!err)
		empty_backlog(listener);
	if (!err && (err = reactor_replace(acceptor->reactor, &listener->watched, fresh.fd,
					   is_paused ? 0 : EPOLLIN))) {
		snprintf(why, sizeof why, "%s: %s", config->address, uv_strerror(err));
		listener_close(&fresh);
	}
	if (!err)
		listener_take(listener, &fresh);
	listeners_tell_lost(listener->address, config->name, err ? why : NULL);
}

void acceptor_renew(struct acceptor *acceptor, const struct config *config)
{
	for (unsigned i = 0; i < config->listener_count; i++) {
		struct listener *listener = listener_at(acceptor, config, i);
		if (listener->stage == LISTENER_ACCEPTING && listener_is_lost(listener))
			renew(acceptor, listener);
	}
}

/* ---- the end ---- */

bool acceptor_has_handed_over(const struct acceptor *acceptor)
{
	return !atomic_load(&acceptor->handing);
}

bool acceptor_handed_over(struct acceptor *acceptor)
{
	return atomic_fetch_sub(&acceptor->handing, 1) == 1;
}

static void close_gate(struct acceptor *acceptor)
{
	int fd = acceptor->gate.fd;
	if (fd < 0)
		return;
	reactor_remove(acceptor->reactor, &acceptor->gate);
	close(fd);
	acceptor->gate.fd = -1;
}

void acceptor_stop(struct acceptor *acceptor, bool has_successor)
{
	balance_stop(&acceptor->balance);
	close_gate(acceptor);
	for (unsigned i = 0; i < LISTENER_SLOTS; i++) {
		struct listener *listener = acceptor->listeners->slots[i];
		if (!listener || listener->fd < 0)
			continue;
		/* Of one that is shared the other process serves them. */
		if (listener->stage == LISTENER_ACCEPTING && !listener->shared && !listener->sockets)
			empty_backlog(listener);
		shut(listener, has_successor ? &acceptor->handing : NULL);
	}
}
