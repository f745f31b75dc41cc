/* Words of texts: runs of characters of one class, each looked up in a table, which new words may be added to.

   Letters: N texts, V words of the table, S slots of it, M words of the texts. */

#include "kernel.h"

enum { UNKNOWN, SPACE }; /* the class of a character that was not asked for yet, and of those that part words */

enum { AT, TEXT, FOUND, WORDS, BYTES, FILLED, STOPPED }; /* what the state holds, see words.py */

typedef struct {
    int64_t num_texts, num_slots, words_room, bytes_room;
    int64_t other;          /* the number of a word that is not in the table; negative: it is added */
    const uint8_t *text;    /* all texts, in UTF-8 */
    const int64_t *ends;    /* where each ends, (N) */
    const uint8_t *classes; /* of all characters */
    uint64_t *slots;        /* the half of a word's hash and its number + 1, or 0, (S), a power of two */
    uint8_t *names;         /* the words of the table, one after the other */
    int64_t *name_ends;     /* where each ends, (V) */
    int32_t *found;         /* (M); out */
    int64_t *found_ends;    /* how many words end up to the end of each text, (N); out */
    int64_t *state;
} ReadWords;

/* The character at a place of valid UTF-8, and its bytes. */
INLINE uint32_t character(const uint8_t *p, int64_t *size) {
    const uint32_t first = p[0];
    if (first < 0x80) return *size = 1, first;
    if (first < 0xE0) return *size = 2, (first & 31) << 6 | (p[1] & 63u);
    if (first < 0xF0) return *size = 3, (first & 15) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
    return *size = 4, (first & 7) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u);
}

INLINE uint64_t hash_of(const uint8_t *word, int64_t size) {
    uint64_t hash = 0xCBF29CE484222325u;
    for (int64_t i = 0; i < size; i++) hash = (hash ^ word[i]) * 0x100000001B3u;
    hash = (hash ^ (hash >> 32)) * 0x9E3779B97F4A7C15u;
    return hash ^ (hash >> 29);
}

/* The slot of a word, or the free one that it may take. */
INLINE uint64_t *slot_of(const ReadWords *r, const uint8_t *word, int64_t size, uint64_t hash) {
    const uint64_t mask = (uint64_t)r->num_slots - 1;
    for (uint64_t at = hash & mask;; at = (at + 1) & mask) {
        uint64_t *slot = r->slots + at;
        if (!*slot) return slot;
        if ((*slot ^ hash) >> 32) continue;
        const int64_t number = (int64_t)(*slot & 0xFFFFFFFFu) - 1, start = number ? r->name_ends[number - 1] : 0;
        if (r->name_ends[number] - start == size && !memcmp(r->names + start, word, (size_t)size)) return slot;
    }
}

INLINE uint64_t entry(uint64_t hash, int64_t number) { return (hash & ~(uint64_t)0xFFFFFFFFu) | (uint64_t)(number + 1); }

/* Give the words of the table that have no slot yet theirs. */
static void fill(const ReadWords *r) {
    for (int64_t *number = r->state + FILLED; *number < r->state[WORDS]; ++*number) {
        const int64_t start = *number ? r->name_ends[*number - 1] : 0, size = r->name_ends[*number] - start;
        const uint64_t hash = hash_of(r->names + start, size);
        *slot_of(r, r->names + start, size, hash) = entry(hash, *number);
    }
}

/* The number of a word, which is added if that is wanted; -1 where there is no room for it. */
INLINE int64_t number_of(const ReadWords *r, const uint8_t *word, int64_t size) {
    int64_t *state = r->state;
    const uint64_t hash = hash_of(word, size);
    uint64_t *slot = slot_of(r, word, size, hash);
    if (*slot) return (int64_t)(*slot & 0xFFFFFFFFu) - 1;
    if (r->other >= 0) return r->other;
    if (state[WORDS] == r->words_room || state[BYTES] + size > r->bytes_room) return -1;
    memcpy(r->names + state[BYTES], word, (size_t)size);
    r->name_ends[state[WORDS]] = state[BYTES] += size;
    *slot = entry(hash, state[WORDS]);
    state[FILLED]++;
    return state[WORDS]++;
}

/* Go on from the state; stop at a character of unknown class, or where there is no room for a word. */
KERNEL(read_words, ReadWords) {
    const ReadWords *r = task;
    int64_t *state = r->state, at = state[AT], size;
    state[STOPPED] = 0;
    fill(r);
    for (; state[TEXT] < r->num_texts; state[TEXT]++) {
        const int64_t end = r->ends[state[TEXT]];
        while (at < end) {
            const int64_t start = at;
            state[AT] = at;
            uint32_t sign = character(r->text + at, &size);
            const uint8_t class = r->classes[sign];
            uint8_t next = class;
            for (at += size; class > SPACE && at < end; at += size) {
                sign = character(r->text + at, &size);
                next = r->classes[sign];
                if (next != class) break;
            }
            if (class == UNKNOWN || next == UNKNOWN) {
                state[STOPPED] = sign;
                return 0;
            }
            if (class == SPACE) continue;
            const int64_t number = number_of(r, r->text + start, at - start);
            if (number < 0) {
                state[STOPPED] = -1;
                return 0;
            }
            r->found[state[FOUND]++] = (int32_t)number;
        }
        r->found_ends[state[TEXT]] = state[FOUND];
        state[AT] = at;
    }
    return 0;
}
