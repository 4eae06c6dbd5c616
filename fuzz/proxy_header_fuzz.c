/*
 * Reads a PROXY header in one piece and cut off at each byte, and aborts when how it came makes a difference.
 */
#include "base/err.h"
#include "stream/proxy_header.h"
#include "support/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CUTS_MAX = 300 }; /* longer ones are cut only there, and near their end */

/* Of a copy without slack, so that the sanitizer sees a byte read too many. */
static int read_part(const uint8_t *data, size_t n, struct proxy_header *header)
{
	uint8_t *copy = malloc(n ? n : 1);
	if (n)
		memcpy(copy, data, n);
	int result = proxy_header_read(copy, n, header);
	bool begins = proxy_header_begins(copy, n);
	free(copy);
	MUST(result >= 0 || (result == ERR_PROXY_HEADER && header->wrong));
	MUST(result <= (int)n && result <= PROXY_HEADER_V2_BYTES);
	MUST(result || (header->need > n && header->need <= PROXY_HEADER_V2_BYTES));
	MUST(begins || result < 0);
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_header whole, part;
	int result = read_part(data, size, &whole);
	for (size_t n = 0; n < size; n++) {
		if (n == CUTS_MAX && size > 2 * CUTS_MAX)
			n = size - CUTS_MAX;
		int of_part = read_part(data, n, &part);
		if (of_part > 0)
			MUST(of_part == result && !memcmp(&part.client, &whole.client, sizeof part.client));
		else if (of_part < 0)
			MUST(result < 0 && part.wrong == whole.wrong);
		else
			MUST(result <= 0 || n < (size_t)result);
	}
	return 0;
}
