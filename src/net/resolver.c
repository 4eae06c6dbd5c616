#include "net/resolver.h"

#include "base/ring.h"
#include "net/hosts.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	BUCKETS = 256, /* a power of two */
	LABEL_MAX = 63,
	TTL_MIN_S = 1,
	TTL_MAX_S = 300,
	FAILURE_TTL_S = 1,
	LOOK_EVERY_MS = 1000,
	DNS_RETIRED_MAX = 8 /* readings of resolv.conf whose questions are not answered yet */
};

static const char RESOLV_PATH[] = "/etc/resolv.conf", HOSTS_PATH[] = "/etc/hosts";

/* Shared by the cache and by those who are yet to be told. */
struct answer {
	unsigned owners;
	unsigned count;
	union address list[];
};

struct resolver_ask {
	struct ring ring; /* of those who wait for an entry, or of those who are due */
	resolver_done done;
	void *data;
	int err;
	struct answer *answer; /* NULL with an error, and until it is due */
};

/* What is known of a name, or is being asked. */
struct entry {
	struct dns_question question; /* first: it leads back here */
	struct ring ring;             /* the resolver's, most recently used first */
	struct resolver *resolver;
	struct entry *next;  /* in its bucket */
	struct ring waiting; /* asks */
	bool is_pending;     /* it is being asked: nothing of what follows is known */
	bool is_outdated;    /* it is in no bucket any more: resolv.conf or the hosts file has changed */
	int err;
	struct answer *answer;
	uint64_t expires_ms;
	int family;
	char name[RESOLVER_NAME_MAX + 2];
};

/* What changes when a file does. */
struct stamp {
	struct timespec modified;
	ino_t inode;
	off_t bytes;
};

struct resolver {
	struct poller *poller;
	uv_timer_t timer;
	struct dns_settings settings;
	char *servers, *resolv_path, *hosts_path; /* NULL: not set */
	struct dns *dns;                          /* NULL: nobody has asked yet */
	struct dns *retired[DNS_RETIRED_MAX];     /* NULL: free */
	struct entry *buckets[BUCKETS];
	struct ring entries;
	struct ring due;         /* asks that are to be told */
	struct ring telling;     /* those of them whose turn it is */
	unsigned count, pending; /* entries */
	uint64_t skipped_ms, looked_ms;
	struct stamp resolv, hosts;
	bool is_freed;
};

/* ---- answers ---- */

/* NULL: no memory. */
static struct answer *answer_new(const struct addresses *addresses)
{
	size_t bytes = addresses->count * sizeof *addresses->list;
	struct answer *answer = malloc(sizeof *answer + bytes);
	if (!answer)
		return NULL;
	answer->owners = 1;
	answer->count = addresses->count;
	memcpy(answer->list, addresses->list, bytes);
	return answer;
}

static void answer_drop(struct answer *answer)
{
	if (answer && !--answer->owners)
		free(answer);
}

/* The loop tells it: nobody is called back while he asks. */
static void ask_is_due(struct resolver *resolver, struct resolver_ask *ask, int err, struct answer *answer)
{
	ask->err = err;
	ask->answer = answer;
	if (answer)
		answer->owners++;
	ring_put_last(&resolver->due, &ask->ring);
}

static void ask_free(struct resolver_ask *ask)
{
	ring_take(&ask->ring);
	answer_drop(ask->answer);
	free(ask);
}

static void asks_free(struct ring *asks)
{
	struct ring *next, *each = asks->next;
	for (; each != asks; each = next) {
		next = each->next;
		ask_free(RING_MEMBER(each, struct resolver_ask, ring));
	}
}

/* ---- entries ---- */

static uint64_t cache_now_ms(const struct resolver *resolver)
{
	return uv_now(resolver->poller->loop) + resolver->skipped_ms;
}

static struct entry **resolver_bucket(struct resolver *resolver, const char *name, int family)
{
	uint32_t hash = 2166136261u ^ (uint32_t)family;
	for (; *name; name++)
		hash = (hash ^ (uint8_t)*name) * 16777619u;
	return &resolver->buckets[(hash ^ hash >> 16) & (BUCKETS - 1)];
}

static void take_from_bucket(struct entry *entry)
{
	struct entry **at = resolver_bucket(entry->resolver, entry->name, entry->family);
	while (*at != entry)
		at = &(*at)->next;
	*at = entry->next;
}

static void entry_free(struct entry *entry)
{
	if (!entry->is_outdated)
		take_from_bucket(entry);
	ring_take(&entry->ring);
	entry->resolver->count--;
	asks_free(&entry->waiting);
	answer_drop(entry->answer);
	free(entry);
}

/* Questions that are under way are no part of the cache yet. */
static void drop_oldest(struct resolver *resolver)
{
	struct ring *each = resolver->entries.previous, *previous;
	for (; resolver->count - resolver->pending > RESOLVER_CACHED_MAX; each = previous) {
		struct entry *entry = RING_MEMBER(each, struct entry, ring);
		previous = each->previous;
		if (!entry->is_pending)
			entry_free(entry);
	}
}

static struct entry *find_entry(struct resolver *resolver, const char *name, int family)
{
	struct entry *entry = *resolver_bucket(resolver, name, family);
	while (entry && (entry->family != family || strcmp(entry->name, name) != 0))
		entry = entry->next;
	return entry;
}

/* NULL: no memory. */
static struct entry *new_entry(struct resolver *resolver, const char *name, int family)
{
	struct entry *entry = calloc(1, sizeof *entry), **bucket = resolver_bucket(resolver, name, family);
	if (!entry)
		return NULL;
	entry->resolver = resolver;
	entry->family = family;
	memcpy(entry->name, name, strlen(name) + 1);
	ring_init(&entry->waiting);
	entry->next = *bucket;
	*bucket = entry;
	ring_put_first(&resolver->entries, &entry->ring);
	resolver->count++;
	return entry;
}

/* We could not ask, or not keep what we were told: that says nothing of the name. */
static bool is_our_fault(int err)
{
	return err == UV_ENOMEM || err == UV_EMFILE || err == UV_ENFILE || err == UV_ENOBUFS;
}

static void learn(struct entry *entry, int err, const struct addresses *addresses, uint32_t ttl_s)
{
	answer_drop(entry->answer);
	entry->answer = err ? NULL : answer_new(addresses);
	entry->err = err || entry->answer ? err : UV_ENOMEM;
	if (entry->err)
		ttl_s = is_our_fault(entry->err) ? 0 : FAILURE_TTL_S;
	else if (ttl_s < TTL_MIN_S)
		ttl_s = TTL_MIN_S;
	else if (ttl_s > TTL_MAX_S)
		ttl_s = TTL_MAX_S;
	entry->expires_ms = cache_now_ms(entry->resolver) + ttl_s * 1000;
}

static void tell_waiting(struct entry *entry)
{
	while (!ring_is_empty(&entry->waiting)) {
		struct ring *first = ring_take_first(&entry->waiting);
		struct resolver_ask *ask = RING_MEMBER(first, struct resolver_ask, ring);
		ask_is_due(entry->resolver, ask, entry->err, entry->answer);
	}
}

static void entry_is_answered(struct entry *entry, int err, const struct addresses *addresses, uint32_t ttl_s)
{
	struct resolver *resolver = entry->resolver;
	entry->is_pending = false;
	resolver->pending--;
	learn(entry, err, addresses, ttl_s);
	tell_waiting(entry);
	if (entry->is_outdated)
		entry_free(entry);
	else
		drop_oldest(resolver);
}

/* ---- asking ---- */

static void on_resolver_timer(uv_timer_t *timer);

/* Not resolver_arm(): this is within c-ares, which may be about to change its time-outs. */
static void on_question_answered(struct dns_question *question, int err, const struct addresses *addresses,
				 uint32_t ttl_s)
{
	struct entry *entry = (struct entry *)(void *)question;
	struct resolver *resolver = entry->resolver;
	if (resolver->is_freed)
		return;
	entry_is_answered(entry, err, addresses, ttl_s);
	uv_timer_start(&resolver->timer, on_resolver_timer, 0, 0);
}

static int open_dns(struct resolver *resolver)
{
	return resolver->dns ? 0 : dns_open(&resolver->dns, resolver->poller, &resolver->settings);
}

static int find_at_home(const struct entry *entry, struct addresses *addresses)
{
	const char *path = entry->resolver->hosts_path;
	return hosts_find(path ? path : HOSTS_PATH, entry->name, entry->family, addresses);
}

static void begin_question(struct entry *entry)
{
	struct resolver *resolver = entry->resolver;
	struct addresses addresses = { .count = 0 };
	int err = find_at_home(entry, &addresses);
	bool is_known = err != UV_EAI_NONAME;
	entry->is_pending = true;
	resolver->pending++;
	if (!is_known)
		err = resolver->pending <= RESOLVER_PENDING_MAX ? open_dns(resolver) : UV_EAI_AGAIN;
	if (is_known || err) {
		entry_is_answered(entry, err, &addresses, TTL_MAX_S);
		return;
	}
	entry->question = (struct dns_question){ .answered = on_question_answered };
	dns_ask(resolver->dns, entry->name, entry->family, &entry->question);
}

/* As it is looked for: in lower case. False: it is none, and no server need be asked. */
static bool read_name(const char *from, char name[RESOLVER_NAME_MAX + 2])
{
	size_t n = strlen(from), label = 0;
	if (!n || n > RESOLVER_NAME_MAX + (from[n - 1] == '.'))
		return false;
	for (size_t i = 0; i <= n; i++) {
		uint8_t byte = (uint8_t)from[i];
		bool is_end = byte == '.' || !byte;
		if (is_end ? !label && i < n : !(isalnum(byte) || byte == '-' || byte == '_'))
			return false;
		label = is_end ? 0 : label + 1;
		if (label > LABEL_MAX)
			return false;
		name[i] = (char)tolower(byte);
	}
	return true;
}

/* False: no memory. */
static bool ask_cache(struct resolver *resolver, struct resolver_ask *ask, const char *name, int family)
{
	struct entry *entry = find_entry(resolver, name, family);
	if (!entry)
		entry = new_entry(resolver, name, family);
	if (!entry)
		return false;
	ring_take(&entry->ring);
	ring_put_first(&resolver->entries, &entry->ring);
	ring_put_last(&entry->waiting, &ask->ring);
	if (entry->is_pending)
		return true;
	if (entry->expires_ms > cache_now_ms(resolver))
		tell_waiting(entry);
	else
		begin_question(entry);
	return true;
}

/* False: no memory. */
static bool answer_literal(struct resolver *resolver, struct resolver_ask *ask, const union address *address,
			   int family)
{
	const struct addresses one = { .count = 1, .list = { *address } };
	if (address->any.sa_family != family) {
		ask_is_due(resolver, ask, UV_EAI_NODATA, NULL);
		return true;
	}
	struct answer *answer = answer_new(&one);
	if (!answer)
		return false;
	ask_is_due(resolver, ask, 0, answer);
	answer_drop(answer);
	return true;
}

/* ---- files that change ---- */

static struct stamp stamp_of(const char *path)
{
	struct stat now;
	if (stat(path, &now))
		return (struct stamp){ 0 };
	return (struct stamp){ now.st_mtim, now.st_ino, now.st_size };
}

static bool is_as_before(const struct stamp *a, const struct stamp *b)
{
	return a->modified.tv_sec == b->modified.tv_sec && a->modified.tv_nsec == b->modified.tv_nsec &&
	       a->inode == b->inode && a->bytes == b->bytes;
}

/* What is under way is told to those who wait for it, and to nobody else. */
static void empty_cache(struct resolver *resolver)
{
	struct ring *next, *each = resolver->entries.next;
	for (; each != &resolver->entries; each = next) {
		struct entry *entry = RING_MEMBER(each, struct entry, ring);
		next = each->next;
		if (!entry->is_pending) {
			entry_free(entry);
		} else if (!entry->is_outdated) {
			take_from_bucket(entry);
			entry->is_outdated = true;
		}
	}
}

/* Its questions are answered first. False: too many do that already. */
static bool retire_dns(struct resolver *resolver)
{
	int free_at = 0;
	while (free_at < DNS_RETIRED_MAX && resolver->retired[free_at])
		free_at++;
	if (!dns_pending(resolver->dns))
		dns_close(resolver->dns);
	else if (free_at < DNS_RETIRED_MAX)
		resolver->retired[free_at] = resolver->dns;
	else
		return false;
	resolver->dns = NULL;
	return true;
}

static void look_at_files(struct resolver *resolver)
{
	uint64_t now_ms = cache_now_ms(resolver);
	if (resolver->looked_ms && now_ms - resolver->looked_ms < LOOK_EVERY_MS)
		return;
	resolver->looked_ms = now_ms;
	struct stamp hosts = stamp_of(resolver->hosts_path ? resolver->hosts_path : HOSTS_PATH);
	struct stamp resolv = stamp_of(resolver->resolv_path ? resolver->resolv_path : RESOLV_PATH);
	bool is_same_resolv = is_as_before(&resolv, &resolver->resolv);
	if (is_same_resolv && is_as_before(&hosts, &resolver->hosts))
		return;
	if (!is_same_resolv && resolver->dns && !retire_dns(resolver))
		return; /* looks again */
	resolver->hosts = hosts;
	resolver->resolv = resolv;
	empty_cache(resolver);
}

/* ---- the loop ---- */

static int earlier_ms(int a, int b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* The timer runs only while there is something to wait for. */
static void resolver_arm(struct resolver *resolver)
{
	int ms = resolver->dns ? dns_timeout_ms(resolver->dns) : -1;
	for (int i = 0; i < DNS_RETIRED_MAX; i++)
		if (resolver->retired[i])
			ms = earlier_ms(ms, dns_timeout_ms(resolver->retired[i]));
	if (!ring_is_empty(&resolver->due))
		ms = 0;
	if (ms < 0)
		uv_timer_stop(&resolver->timer);
	else
		uv_timer_start(&resolver->timer, on_resolver_timer, (uint64_t)ms, 0);
}

static void expire_questions(struct resolver *resolver)
{
	if (resolver->dns)
		dns_expire(resolver->dns);
	for (int i = 0; i < DNS_RETIRED_MAX; i++) {
		struct dns *retired = resolver->retired[i];
		if (!retired)
			continue;
		dns_expire(retired);
		if (dns_pending(retired))
			continue;
		resolver->retired[i] = NULL;
		dns_close(retired);
	}
}

/* It is in no list any more, and gone when its callback runs. */
static void tell_ask(struct resolver_ask *ask)
{
	resolver_done done = ask->done;
	void *data = ask->data;
	struct answer *answer = ask->answer;
	int err = ask->err;
	free(ask);
	done(data, err, answer ? answer->list : NULL, answer ? answer->count : 0);
	answer_drop(answer);
}

/* Those that come meanwhile wait for the next turn: whoever asks again in its callback holds nobody up. */
static void on_resolver_timer(uv_timer_t *timer)
{
	struct resolver *resolver = timer->data;
	expire_questions(resolver);
	ring_move(&resolver->due, &resolver->telling);
	while (!ring_is_empty(&resolver->telling))
		tell_ask(RING_MEMBER(ring_take_first(&resolver->telling), struct resolver_ask, ring));
	if (!resolver->is_freed)
		resolver_arm(resolver);
}

struct resolver_ask *resolver_ask(struct resolver *resolver, const char *name, int family, resolver_done done,
				  void *data)
{
	char key[RESOLVER_NAME_MAX + 2];
	union address literal;
	bool is_asked = true;
	struct resolver_ask *ask = calloc(1, sizeof *ask);
	if (!ask)
		return NULL;
	ask->done = done;
	ask->data = data;
	look_at_files(resolver);
	if (address_read(name, &literal))
		is_asked = answer_literal(resolver, ask, &literal, family);
	else if (read_name(name, key))
		is_asked = ask_cache(resolver, ask, key, family);
	else
		ask_is_due(resolver, ask, UV_EINVAL, NULL);
	if (!is_asked) {
		free(ask);
		return NULL;
	}
	resolver_arm(resolver);
	return ask;
}

void resolver_cancel(struct resolver_ask *ask)
{
	ask_free(ask);
}

void resolver_skip(struct resolver *resolver, uint64_t ms)
{
	resolver->skipped_ms += ms;
}

/* ---- its life ---- */

/* True: there is none, or here is its copy. */
static bool copy_setting(const char *from, char **to)
{
	*to = from ? strdup(from) : NULL;
	return !from || *to;
}

static void free_resolver(struct resolver *resolver)
{
	free(resolver->servers);
	free(resolver->resolv_path);
	free(resolver->hosts_path);
	free(resolver);
}

static bool copy_settings(struct resolver *resolver, const struct resolver_settings *settings)
{
	resolver->settings = settings->dns;
	bool is_copied = copy_setting(settings->dns.servers, &resolver->servers) &&
			 copy_setting(settings->dns.resolv_path, &resolver->resolv_path) &&
			 copy_setting(settings->hosts_path, &resolver->hosts_path);
	resolver->settings.servers = resolver->servers;
	resolver->settings.resolv_path = resolver->resolv_path;
	return is_copied;
}

struct resolver *resolver_new(struct poller *poller, const struct resolver_settings *settings)
{
	struct resolver *resolver = calloc(1, sizeof *resolver);
	if (!resolver)
		return NULL;
	if (settings && !copy_settings(resolver, settings)) {
		free_resolver(resolver);
		return NULL;
	}
	resolver->poller = poller;
	ring_init(&resolver->entries);
	ring_init(&resolver->due);
	ring_init(&resolver->telling);
	uv_timer_init(poller->loop, &resolver->timer);
	resolver->timer.data = resolver;
	return resolver;
}

static void on_resolver_closed(uv_handle_t *timer)
{
	free_resolver(timer->data);
}

void resolver_free(struct resolver *resolver)
{
	if (!resolver)
		return;
	assert(!resolver->is_freed);
	resolver->is_freed = true;
	if (resolver->dns)
		dns_close(resolver->dns);
	for (int i = 0; i < DNS_RETIRED_MAX; i++)
		if (resolver->retired[i])
			dns_close(resolver->retired[i]);
	while (!ring_is_empty(&resolver->entries))
		entry_free(RING_MEMBER(resolver->entries.next, struct entry, ring));
	asks_free(&resolver->due);
	asks_free(&resolver->telling);
	uv_close((uv_handle_t *)&resolver->timer, on_resolver_closed);
}
