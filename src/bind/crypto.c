/*
 * perilune.crypto: digests, keyed digests, sealing, signatures, random bytes, by OpenSSL.
 *
 * OpenSSL's memory is not Lua's: it belongs to a userdata, so that whatever raises leaves none behind. What is long is
 * passed on in pieces.
 */
#include "bind/bind.h"

#include <limits.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <string.h>

#define CIPHER_META "perilune.cipher"
#define DIGESTING_META "perilune.digesting"
#define KEY_META "perilune.key"
#define KEYED_META "perilune.keyed"

enum {
	TAG_BYTES = 16,
	NONCE_BYTES = 12,
	RANDOM_MAX = 1 << 20,
	EQUAL_PIECE = 1 << 20,
	WHOLE_MAX = 16 << 20, /* Ed25519 wants what it signs at once: some 60 ms */
	PEM_MAX = 16384
};

/*
 * MAY RAISE: it always does. What OpenSSL has noted of it is for nobody, least of all for what a thread does with TLS
 * next.
 */
#define REFUSE(...)                 \
	do {                        \
		ERR_clear_error();  \
		RAISE(__VA_ARGS__); \
	} while (0)

/* ---- memory of OpenSSL's ---- */

struct owned {
	void *pointer;
};

static int l_cipher_gc(lua_State *lua)
{
	struct owned *owned = lua_touserdata(lua, 1);
	EVP_CIPHER_CTX_free(owned->pointer);
	owned->pointer = NULL;
	return 0;
}

static int l_digesting_gc(lua_State *lua)
{
	struct owned *owned = lua_touserdata(lua, 1);
	EVP_MD_CTX_free(owned->pointer);
	owned->pointer = NULL;
	return 0;
}

static int l_key_gc(lua_State *lua)
{
	struct owned *owned = lua_touserdata(lua, 1);
	EVP_PKEY_free(owned->pointer);
	owned->pointer = NULL;
	return 0;
}

/* MAY RAISE. Pushes what owns what is then put into it. */
static struct owned *push_owned(lua_State *lua, const char *meta)
{
	struct owned *owned = lua_newuserdata(lua, sizeof *owned);
	owned->pointer = NULL;
	luaL_getmetatable(lua, meta);
	lua_setmetatable(lua, -2);
	return owned;
}

/* MAY RAISE. */
static void *check_memory(lua_State *lua, void *pointer)
{
	if (!pointer)
		REFUSE(lua, "not enough memory");
	return pointer;
}

/* MAY RAISE. On the stack is then what owns it, which the caller frees as soon as it may. */
static EVP_MD_CTX *push_digesting(lua_State *lua, struct owned **owner)
{
	*owner = push_owned(lua, DIGESTING_META);
	return check_memory(lua, (*owner)->pointer = EVP_MD_CTX_new());
}

static void free_digesting(struct owned *owner)
{
	EVP_MD_CTX_free(owner->pointer);
	owner->pointer = NULL;
}

/* ---- digests ---- */

enum { DIGESTS_COUNT = 6 };

static const char *const DIGESTS[DIGESTS_COUNT + 1] = { "md5",    "sha1",   "sha224", "sha256",
							"sha384", "sha512", NULL };

/* OpenSSL looks what EVP_sha256() and its like return up at each use, which takes as long as a short digest. */
static EVP_MD *digests[DIGESTS_COUNT];
static pthread_once_t digests_once = PTHREAD_ONCE_INIT;

static void fetch_digests(void)
{
	for (int i = 0; i < DIGESTS_COUNT; i++)
		digests[i] = EVP_MD_fetch(NULL, DIGESTS[i], NULL);
	ERR_clear_error();
}

static const EVP_MD *digest_of(unsigned which)
{
	pthread_once(&digests_once, fetch_digests);
	return digests[which];
}

/* MAY RAISE. */
static const EVP_MD *check_digest(lua_State *lua, int idx, const char *what)
{
	const EVP_MD *type = digest_of(bind_choice_of(lua, idx, DIGESTS, what));
	if (!type)
		REFUSE(lua, "this OpenSSL has no %s", lua_tostring(lua, idx));
	return type;
}

typedef int update_fn(EVP_MD_CTX *, const void *, size_t);

/* MAY RAISE. False: OpenSSL will not. */
static bool update(lua_State *lua, EVP_MD_CTX *digesting, update_fn *add, const char *data, size_t n,
		   const char *what)
{
	for (; n > BIND_PIECE_BYTES; n -= BIND_PIECE_BYTES, data += BIND_PIECE_BYTES) {
		if (add(digesting, data, BIND_PIECE_BYTES) != 1)
			return false;
		bind_go_on(lua, what);
	}
	return add(digesting, data, n) == 1;
}

/* MAY RAISE. Of more than a piece. */
static bool digest_long(lua_State *lua, const EVP_MD *type, const char *data, size_t n, unsigned char *bytes,
			unsigned *size)
{
	struct owned *owner;
	EVP_MD_CTX *digesting = push_digesting(lua, &owner);
	bool is_done = EVP_DigestInit_ex(digesting, type, NULL) &&
		       update(lua, digesting, EVP_DigestUpdate, data, n, "crypto.digest") &&
		       EVP_DigestFinal_ex(digesting, bytes, size);
	free_digesting(owner);
	return is_done;
}

/* MAY RAISE. digest(name, data) → bytes */
static int l_digest(lua_State *lua)
{
	unsigned char bytes[EVP_MAX_MD_SIZE];
	unsigned size = 0;
	size_t n;
	BIND_AT_MOST(lua, 2, "crypto.digest");
	const EVP_MD *type = check_digest(lua, 1, "crypto.digest: the digest");
	const char *data = bind_string_of(lua, 2, &n, "crypto.digest", "the data");
	if (n > BIND_PIECE_BYTES ? !digest_long(lua, type, data, n, bytes, &size)
				 : !EVP_Digest(data, n, bytes, &size, type, NULL))
		REFUSE(lua, "this OpenSSL has no %s", lua_tostring(lua, 1));
	lua_pushlstring(lua, (const char *)bytes, size);
	return 1;
}

/*
 * A keyed digest that is being made. The block is the key as it is used: what ends the call leaves none of it behind.
 */
struct keyed {
	struct owned digesting;
	unsigned char block[EVP_MAX_BLOCK_LENGTH * 8];
};

static void keyed_deinit(struct keyed *keyed)
{
	free_digesting(&keyed->digesting);
	OPENSSL_cleanse(keyed->block, sizeof keyed->block);
}

static int l_keyed_gc(lua_State *lua)
{
	keyed_deinit(lua_touserdata(lua, 1));
	return 0;
}

/* MAY RAISE. On the stack is then what it is, which the caller deinits as soon as it may. */
static struct keyed *push_keyed(lua_State *lua)
{
	struct keyed *keyed = lua_newuserdata(lua, sizeof *keyed);
	memset(keyed, 0, sizeof *keyed);
	luaL_getmetatable(lua, KEYED_META);
	lua_setmetatable(lua, -2);
	keyed->digesting.pointer = check_memory(lua, EVP_MD_CTX_new());
	return keyed;
}

/* Begins with the key's block, xored with that byte. */
static bool begin_pass(const struct keyed *keyed, const EVP_MD *type, unsigned char pad)
{
	unsigned char padded[sizeof keyed->block];
	size_t block_bytes = (size_t)EVP_MD_get_block_size(type);
	for (size_t i = 0; i < block_bytes; i++)
		padded[i] = keyed->block[i] ^ pad;
	bool is_done = EVP_DigestInit_ex(keyed->digesting.pointer, type, NULL) &&
		       EVP_DigestUpdate(keyed->digesting.pointer, padded, block_bytes);
	OPENSSL_cleanse(padded, sizeof padded);
	return is_done;
}

/* MAY RAISE. Of the keyed digest's two, the one with that byte: of the key's block, xored with it, and the data. */
static bool hmac_pass(lua_State *lua, struct keyed *keyed, const EVP_MD *type, unsigned char pad,
		      const char *data, size_t n, unsigned char *bytes, unsigned *size)
{
	EVP_MD_CTX *digesting = keyed->digesting.pointer;
	return begin_pass(keyed, type, pad) &&
	       update(lua, digesting, EVP_DigestUpdate, data, n, "crypto.hmac") &&
	       EVP_DigestFinal_ex(digesting, bytes, size);
}

/* MAY RAISE. HMAC of RFC 2104, from the digest: OpenSSL's own takes its data at once, or is looked up at each call. */
static bool hmac(lua_State *lua, const EVP_MD *type, const char *key, size_t key_bytes, const char *data,
		 size_t n, unsigned char *bytes, unsigned *size)
{
	struct keyed *keyed = push_keyed(lua);
	EVP_MD_CTX *digesting = keyed->digesting.pointer;
	bool is_done = true;
	if (key_bytes > (size_t)EVP_MD_get_block_size(type))
		is_done = EVP_DigestInit_ex(digesting, type, NULL) &&
			  update(lua, digesting, EVP_DigestUpdate, key, key_bytes, "crypto.hmac") &&
			  EVP_DigestFinal_ex(digesting, keyed->block, size);
	else
		memcpy(keyed->block, key, key_bytes);
	is_done = is_done && hmac_pass(lua, keyed, type, 0x36, data, n, bytes, size) &&
		  hmac_pass(lua, keyed, type, 0x5c, (const char *)bytes, *size, bytes, size);
	keyed_deinit(keyed);
	return is_done;
}

/* MAY RAISE. hmac(name, key, data) → bytes */
static int l_hmac(lua_State *lua)
{
	unsigned char bytes[EVP_MAX_MD_SIZE];
	unsigned size = 0;
	size_t key_bytes, n;
	BIND_AT_MOST(lua, 3, "crypto.hmac");
	const EVP_MD *type = check_digest(lua, 1, "crypto.hmac: the digest");
	const char *key = bind_string_of(lua, 2, &key_bytes, "crypto.hmac", "the key");
	const char *data = bind_string_of(lua, 3, &n, "crypto.hmac", "the data");
	if (!hmac(lua, type, key, key_bytes, data, n, bytes, &size))
		REFUSE(lua, "this OpenSSL has no %s", lua_tostring(lua, 1));
	lua_pushlstring(lua, (const char *)bytes, size);
	return 1;
}

/*
 * MAY RAISE. equal(a, b) → boolean, in a time that does not tell where they differ; it tells whether they are as long.
 */
static int l_equal(lua_State *lua)
{
	size_t a_bytes, b_bytes;
	BIND_AT_MOST(lua, 2, "crypto.equal");
	const char *a = bind_string_of(lua, 1, &a_bytes, "crypto.equal", "the first"),
		   *b = bind_string_of(lua, 2, &b_bytes, "crypto.equal", "the second");
	int differs = a_bytes != b_bytes;
	size_t n = differs ? 0 : a_bytes;
	for (size_t at = 0; at < n; at += EQUAL_PIECE) {
		differs |= CRYPTO_memcmp(a + at, b + at, n - at < EQUAL_PIECE ? n - at : EQUAL_PIECE);
		bind_go_on(lua, "crypto.equal");
	}
	lua_pushboolean(lua, !differs);
	return 1;
}

/* ---- random bytes ---- */

/* MAY RAISE. */
static void fill_random(lua_State *lua, void *bytes, size_t n)
{
	if (n && RAND_bytes(bytes, (int)n) != 1)
		REFUSE(lua, "the system gives no random bytes");
}

/* MAY RAISE. random(n) → bytes */
static int l_random(lua_State *lua)
{
	struct bind_small small;
	BIND_AT_MOST(lua, 1, "crypto.random");
	double n = bind_number_of(lua, 1, "crypto.random", "how many bytes");
	if (!(n >= 0 && n <= RANDOM_MAX && n == (double)(size_t)n))
		bind_raise(lua, "crypto.random: it expects 0 to %d bytes", RANDOM_MAX);
	char *bytes = bind_room(lua, &small, (size_t)n);
	fill_random(lua, bytes, (size_t)n);
	lua_pushlstring(lua, bytes, (size_t)n);
	return 1;
}

/* MAY RAISE. uuid([milliseconds]) → text: version 4; with a time, version 7 (RFC 9562) */
static int l_uuid(lua_State *lua)
{
	unsigned char id[16];
	char text[37], *to = text;
	bool has_time = !lua_isnoneornil(lua, 1);
	uint64_t ms = has_time ? (uint64_t)luaL_checknumber(lua, 1) : 0;
	fill_random(lua, id, sizeof id);
	for (int i = 0; has_time && i < 6; i++)
		id[i] = (unsigned char)(ms >> (40 - 8 * i));
	id[6] = (unsigned char)((id[6] & 0x0f) | (has_time ? 0x70 : 0x40));
	id[8] = (unsigned char)((id[8] & 0x3f) | 0x80);
	for (size_t i = 0; i < sizeof id; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*to++ = '-';
		to += snprintf(to, 3, "%02x", id[i]);
	}
	lua_pushlstring(lua, text, (size_t)(to - text));
	return 1;
}

/* ---- sealing: AES-GCM ---- */

/* What seal() and open() are given. */
struct sealing {
	const unsigned char *key, *nonce, *data, *aside;
	size_t key_bytes, data_bytes, aside_bytes;
	const char *what;
};

/* MAY RAISE. */
static struct sealing check_sealing(lua_State *lua, const char *what, const char *data_name)
{
	struct sealing args = { .what = what };
	size_t nonce_bytes;
	args.key = (const unsigned char *)bind_string_of(lua, 1, &args.key_bytes, what, "the key");
	if (args.key_bytes != 16 && args.key_bytes != 24 && args.key_bytes != 32)
		bind_raise(lua, "%s: the key expects 16, 24 or 32 bytes, got %d", what, (int)args.key_bytes);
	args.nonce = (const unsigned char *)bind_string_of(lua, 2, &nonce_bytes, what, "the nonce");
	if (nonce_bytes != NONCE_BYTES)
		bind_raise(lua, "%s: the nonce expects %d bytes, got %d", what, NONCE_BYTES,
			   (int)nonce_bytes);
	args.data = (const unsigned char *)bind_string_of(lua, 3, &args.data_bytes, what, data_name);
	args.aside = (const unsigned char *)"";
	if (!lua_isnoneornil(lua, 4))
		args.aside =
		    (const unsigned char *)bind_string_of(lua, 4, &args.aside_bytes, what, "the text aside");
	return args;
}

/* MAY RAISE. What goes through the cipher, in pieces; `to` may be NULL. */
static bool cipher(lua_State *lua, EVP_CIPHER_CTX *context, unsigned char *to, const unsigned char *from,
		   size_t n, const char *what)
{
	for (size_t at = 0; at < n; at += BIND_PIECE_BYTES) {
		int done, piece = n - at < BIND_PIECE_BYTES ? (int)(n - at) : BIND_PIECE_BYTES;
		if (EVP_CipherUpdate(context, to ? to + at : NULL, &done, from + at, piece) != 1)
			return false;
		bind_go_on(lua, what);
	}
	return true;
}

/* MAY RAISE. On the stack is then what owns it. */
static EVP_CIPHER_CTX *push_cipher(lua_State *lua, const struct sealing *args, bool seals,
				   struct owned **owner)
{
	const EVP_CIPHER *type = args->key_bytes == 16   ? EVP_aes_128_gcm()
				 : args->key_bytes == 24 ? EVP_aes_192_gcm()
							 : EVP_aes_256_gcm();
	*owner = push_owned(lua, CIPHER_META);
	EVP_CIPHER_CTX *context = check_memory(lua, (*owner)->pointer = EVP_CIPHER_CTX_new());
	if (EVP_CipherInit_ex(context, type, NULL, args->key, args->nonce, seals) != 1)
		REFUSE(lua, "this OpenSSL has no AES-GCM");
	return context;
}

static void free_cipher(struct owned *owner)
{
	EVP_CIPHER_CTX_free(owner->pointer);
	owner->pointer = NULL;
}

/* MAY RAISE. seal(key, nonce, data[, aside]) → sealed */
static int l_seal(lua_State *lua)
{
	struct bind_small small;
	struct owned *owner;
	int rest;
	BIND_AT_MOST(lua, 4, "crypto.seal");
	struct sealing args = check_sealing(lua, "crypto.seal", "the data");
	unsigned char *sealed = (unsigned char *)bind_room(lua, &small, args.data_bytes + TAG_BYTES);
	EVP_CIPHER_CTX *context = push_cipher(lua, &args, true, &owner);
	bool is_done =
	    cipher(lua, context, NULL, args.aside, args.aside_bytes, args.what) &&
	    cipher(lua, context, sealed, args.data, args.data_bytes, args.what) &&
	    EVP_CipherFinal_ex(context, sealed + args.data_bytes, &rest) == 1 &&
	    EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, sealed + args.data_bytes) == 1;
	free_cipher(owner);
	if (!is_done)
		REFUSE(lua, "OpenSSL does not seal this");
	lua_pushlstring(lua, (char *)sealed, args.data_bytes + TAG_BYTES);
	return 1;
}

/* MAY RAISE. open(key, nonce, sealed[, aside]) → data | nil, message */
static int l_crypto_open(lua_State *lua)
{
	struct bind_small small;
	struct owned *owner;
	int rest;
	BIND_AT_MOST(lua, 4, "crypto.open");
	struct sealing args = check_sealing(lua, "crypto.open", "what is sealed");
	if (args.data_bytes < TAG_BYTES) {
		lua_pushnil(lua);
		lua_pushliteral(lua, "too short: 16 bytes at least are the seal");
		return 2;
	}
	size_t n = args.data_bytes - TAG_BYTES;
	unsigned char *data = (unsigned char *)bind_room(lua, &small, n);
	EVP_CIPHER_CTX *context = push_cipher(lua, &args, false, &owner);
	bool is_done =
	    cipher(lua, context, NULL, args.aside, args.aside_bytes, args.what) &&
	    cipher(lua, context, data, args.data, n, args.what) &&
	    EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, (void *)(args.data + n)) == 1 &&
	    EVP_CipherFinal_ex(context, data + n, &rest) == 1;
	free_cipher(owner);
	ERR_clear_error();
	if (!is_done) {
		lua_pushnil(lua);
		lua_pushliteral(lua,
				"the seal is broken: another key, nonce or text aside, or it was changed");
		return 2;
	}
	lua_pushlstring(lua, (char *)data, n);
	return 1;
}

/* ---- signatures ---- */

/* Nobody is asked for a password. */
static int refuse_password(char *to, int size, int writes, void *data)
{
	(void)to, (void)size, (void)writes, (void)data;
	return -1;
}

static EVP_PKEY *read_key(const char *pem, size_t n, bool is_private)
{
	BIO *bio = n <= PEM_MAX ? BIO_new_mem_buf(pem, (int)n) : NULL;
	EVP_PKEY *key = !bio         ? NULL
			: is_private ? PEM_read_bio_PrivateKey(bio, NULL, refuse_password, NULL)
				     : PEM_read_bio_PUBKEY(bio, NULL, refuse_password, NULL);
	BIO_free(bio);
	ERR_clear_error();
	return key;
}

/* MAY RAISE. Pushes the key of the string at 1, or nil and why there is none. Those that were read are remembered until
 * the collector comes by: the first upvalue is their table. */
static EVP_PKEY *push_key(lua_State *lua, bool is_private)
{
	size_t n;
	const char *pem = lua_tolstring(lua, 1, &n);
	lua_pushvalue(lua, 1);
	lua_rawget(lua, lua_upvalueindex(1));
	if (lua_touserdata(lua, -1))
		return ((struct owned *)lua_touserdata(lua, -1))->pointer;
	lua_pop(lua, 1);
	struct owned *owner = push_owned(lua, KEY_META);
	owner->pointer = read_key(pem, n, is_private);
	int kind = owner->pointer ? EVP_PKEY_get_base_id(owner->pointer) : EVP_PKEY_NONE;
	if (kind != EVP_PKEY_ED25519 && kind != EVP_PKEY_EC) {
		lua_pushnil(lua);
		lua_pushstring(lua, kind != EVP_PKEY_NONE
					? "the key is neither Ed25519 nor of an elliptic curve"
				    : is_private ? "no private key in PEM"
						 : "no public key in PEM");
		return NULL;
	}
	lua_pushvalue(lua, 1);
	lua_pushvalue(lua, -2);
	lua_rawset(lua, lua_upvalueindex(1));
	return owner->pointer;
}

/*
 * MAY RAISE. The digest that is signed: the one named at idx, or what goes with the curve; NULL: Ed25519 has its own.
 */
static const EVP_MD *check_signed_digest(lua_State *lua, int idx, const EVP_PKEY *key, const char *what)
{
	bool is_named = !lua_isnoneornil(lua, idx);
	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519) {
		if (is_named)
			bind_raise(lua, "%s: a key of Ed25519 has its own digest", what);
		return NULL;
	}
	if (is_named)
		return check_digest(lua, idx, what);
	int bits = EVP_PKEY_get_bits(key);
	return bits <= 256 ? EVP_sha256() : bits <= 384 ? EVP_sha384() : EVP_sha512();
}

/* MAY RAISE. */
static void check_whole(lua_State *lua, const EVP_MD *type, size_t n, const char *what)
{
	if (!type && n > WHOLE_MAX)
		bind_raise(lua, "%s: the data is too long for Ed25519, which takes 16 MiB", what);
}

/* 1: the signature is right. MAY RAISE. */
static int verify(lua_State *lua, EVP_MD_CTX *digesting, const EVP_MD *type, EVP_PKEY *key, const char *data,
		  size_t n, const char *signature, size_t signature_bytes)
{
	if (EVP_DigestVerifyInit(digesting, NULL, type, NULL, key) != 1)
		REFUSE(lua, "OpenSSL does not verify with this key and digest");
	if (!type)
		return EVP_DigestVerify(digesting, (const unsigned char *)signature, signature_bytes,
					(const unsigned char *)data, n);
	if (!update(lua, digesting, EVP_DigestVerifyUpdate, data, n, "crypto.verify"))
		return 0;
	return EVP_DigestVerifyFinal(digesting, (const unsigned char *)signature, signature_bytes);
}

/* MAY RAISE. verify(key, data, signature[, digest]) → boolean | nil, message */
static int l_verify(lua_State *lua)
{
	struct owned *owner;
	size_t n, signature_bytes;
	BIND_AT_MOST(lua, 4, "crypto.verify");
	bind_string_of(lua, 1, NULL, "crypto.verify", "the key");
	const char *data = bind_string_of(lua, 2, &n, "crypto.verify", "the data"),
		   *signature = bind_string_of(lua, 3, &signature_bytes, "crypto.verify", "the signature");
	lua_settop(lua, 4);
	EVP_PKEY *key = push_key(lua, false);
	if (!key)
		return 2;
	const EVP_MD *type = check_signed_digest(lua, 4, key, "crypto.verify: the digest");
	check_whole(lua, type, n, "crypto.verify");
	EVP_MD_CTX *digesting = push_digesting(lua, &owner);
	int is_right = verify(lua, digesting, type, key, data, n, signature, signature_bytes);
	free_digesting(owner);
	ERR_clear_error();
	lua_pushboolean(lua, is_right == 1);
	return 1;
}

/* MAY RAISE. The signature; its size is what there is room for, and then what it is. */
static bool sign(lua_State *lua, EVP_MD_CTX *digesting, const EVP_MD *type, EVP_PKEY *key, const char *data,
		 size_t n, unsigned char *signature, size_t *size)
{
	if (EVP_DigestSignInit(digesting, NULL, type, NULL, key) != 1)
		return false;
	if (!type)
		return EVP_DigestSign(digesting, signature, size, (const unsigned char *)data, n) == 1;
	return update(lua, digesting, EVP_DigestSignUpdate, data, n, "crypto.sign") &&
	       EVP_DigestSignFinal(digesting, signature, size) == 1;
}

/* MAY RAISE. sign(key, data[, digest]) → signature | nil, message */
static int l_sign(lua_State *lua)
{
	unsigned char signature[512];
	size_t n, size = sizeof signature;
	struct owned *owner;
	BIND_AT_MOST(lua, 3, "crypto.sign");
	bind_string_of(lua, 1, NULL, "crypto.sign", "the key");
	const char *data = bind_string_of(lua, 2, &n, "crypto.sign", "the data");
	lua_settop(lua, 3);
	EVP_PKEY *key = push_key(lua, true);
	if (!key)
		return 2;
	const EVP_MD *type = check_signed_digest(lua, 3, key, "crypto.sign: the digest");
	check_whole(lua, type, n, "crypto.sign");
	EVP_MD_CTX *digesting = push_digesting(lua, &owner);
	bool is_done = sign(lua, digesting, type, key, data, n, signature, &size);
	free_digesting(owner);
	ERR_clear_error();
	if (!is_done)
		REFUSE(lua, "OpenSSL does not sign with this key and digest");
	lua_pushlstring(lua, (char *)signature, size);
	return 1;
}

/* ---- the table ---- */

static const luaL_Reg FUNCTIONS[] = {
	{ "digest", l_digest }, { "hmac", l_hmac }, { "equal", l_equal },      { "random", l_random },
	{ "uuid", l_uuid },     { "seal", l_seal }, { "open", l_crypto_open }, { NULL, NULL },
};

static void new_owned_metatable(lua_State *lua, const char *name, lua_CFunction gc)
{
	luaL_newmetatable(lua, name);
	lua_pushcfunction(lua, gc);
	lua_setfield(lua, -2, "__gc");
	lua_pop(lua, 1);
}

/* A table whose values the collector may take. */
static void push_weak_table(lua_State *lua)
{
	lua_newtable(lua);
	lua_createtable(lua, 0, 1);
	lua_pushliteral(lua, "v");
	lua_setfield(lua, -2, "__mode");
	lua_setmetatable(lua, -2);
}

void bind_crypto(lua_State *lua)
{
	new_owned_metatable(lua, CIPHER_META, l_cipher_gc);
	new_owned_metatable(lua, DIGESTING_META, l_digesting_gc);
	new_owned_metatable(lua, KEY_META, l_key_gc);
	new_owned_metatable(lua, KEYED_META, l_keyed_gc);
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
	push_weak_table(lua);
	lua_pushcclosure(lua, l_verify, 1);
	lua_setfield(lua, -2, "verify");
	push_weak_table(lua);
	lua_pushcclosure(lua, l_sign, 1);
	lua_setfield(lua, -2, "sign");
}
