#include "net/dial.h"

#include "net/lookup.h"

#include <assert.h>
#include <stdlib.h>

/* RFC 8305, section 8 */
enum { ATTEMPT_MS = 250, RESOLUTION_MS = 50 };

struct dialer_query {
	struct lookup lookup; /* first: it leads back here */
	struct dialer *dialer;
	dialer_resolved done;
	void *data;
};

void dialer_init(struct dialer *dialer, struct poller *poller, const struct resolver_settings *settings)
{
	*dialer = (struct dialer){ .poller = poller,
				   .settings = settings,
				   .attempt_ms = ATTEMPT_MS,
				   .resolution_ms = RESOLUTION_MS };
}

void dialer_deinit(struct dialer *dialer)
{
	assert(!dialer->count);
	resolver_free(dialer->resolver);
	dialer->resolver = NULL;
}

struct resolver *dialer_resolver(struct dialer *dialer)
{
	if (!dialer->resolver)
		dialer->resolver = resolver_new(dialer->poller, dialer->settings);
	return dialer->resolver;
}

/* ---- only resolving ---- */

void dialer_resolve_cancel(struct dialer_query *query)
{
	query->dialer->count--;
	lookup_end(&query->lookup);
	free(query);
}

static void on_query_answered(struct lookup *lookup, enum lookup_family family)
{
	struct dialer_query *query = (struct dialer_query *)(void *)lookup;
	union address list[LOOKUP_FAMILIES * ADDRESSES_MAX];
	unsigned count = 0;
	(void)family;
	if (lookup_is_pending(lookup))
		return;
	while (lookup_take(lookup, &list[count]))
		count++;
	int outcome = count ? 0 : lookup_err(lookup);
	dialer_resolved done = query->done;
	void *data = query->data;
	dialer_resolve_cancel(query);
	done(data, outcome, count ? list : NULL, count);
}

struct dialer_query *dialer_resolve(struct dialer *dialer, const char *name, int family, dialer_resolved done,
				    void *data)
{
	struct resolver *resolver = dialer_resolver(dialer);
	struct dialer_query *query = resolver ? malloc(sizeof *query) : NULL;
	if (!query)
		return NULL;
	query->dialer = dialer;
	query->done = done;
	query->data = data;
	if (lookup_begin(&query->lookup, resolver, name, family, 0, on_query_answered)) {
		free(query);
		return NULL;
	}
	dialer->count++;
	return query;
}
