/* SHA-1 of texts of all lengths, as OpenSSL has it. */
#include "base/sha1.h"

#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void agrees_with_openssl(void **state)
{
	uint8_t data[SHA1_MOST], digest[SHA1_BYTES], theirs[EVP_MAX_MD_SIZE];
	unsigned bytes;
	(void)state;
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7 + 130);
	for (size_t n = 0; n <= sizeof data; n++) {
		sha1(digest, data, n);
		assert_int_equal(EVP_Digest(data, n, theirs, &bytes, EVP_sha1(), NULL), 1);
		assert_int_equal(bytes, sizeof digest);
		assert_memory_equal(digest, theirs, sizeof digest);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(agrees_with_openssl) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
