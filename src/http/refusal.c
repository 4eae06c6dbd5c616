#include "http/refusal.h"

#include "base/counters.h"
#include "base/err.h"

struct described {
	unsigned status;
	const char *text;
};

#define DESCRIBE(name, status, text) [REFUSE_##name] = { status, text },
static const struct described REFUSALS[REFUSAL_COUNT] = { [REFUSE_NOTHING] = { 0, "" },
							  HTTP_REFUSALS(DESCRIBE) };

unsigned http_refusal_status(enum http_refusal refusal)
{
	return REFUSALS[refusal].status;
}

const char *http_refusal_text(enum http_refusal refusal)
{
	return REFUSALS[refusal].text;
}

int http_refusal_error(enum http_refusal refusal)
{
	unsigned status = REFUSALS[refusal].status;
	return status == 413 || status == 414 || status == 431 ? ERR_FRAME_TOO_LARGE : ERR_FRAME_MALFORMED;
}

void http_refusal_count(struct counters *counters, enum http_refusal refusal)
{
	counter *const by_status[] = { &counters->http_400, &counters->http_408, &counters->http_413,
				       &counters->http_414, &counters->http_417, &counters->http_431,
				       &counters->http_500, &counters->http_501, &counters->http_503,
				       &counters->http_505 };
	static const unsigned STATUSES[] = { 400, 408, 413, 414, 417, 431, 500, 501, 503, 505 };
	for (unsigned i = 0; i < sizeof STATUSES / sizeof *STATUSES; i++)
		if (STATUSES[i] == REFUSALS[refusal].status)
			count(by_status[i]);
}
