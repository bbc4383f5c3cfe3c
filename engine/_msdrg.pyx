"""The MS-DRG grouper: claims in, DRGs out, exactly as the CMS software answers.

Layers, from the bottom: ``group`` (in the .pxd) groups one claim in plain C structs; ``Grouper`` owns the
verified tables of one version; ``ClaimBatch`` checks Python claims and lays them out as structs; ``run``
groups a batch with the GIL released. Everything a person reads (enumerations, result classes, titles) is in
``engine.drg``.

Section numbers in comments are those of ``docs/msdrg.md``, which describes the rules.
"""

cimport cython
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_Check
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from ._claims cimport GROUPER, ClaimFields, Layout, ascii_of, codes_of, number_of, one_of
from ._memory cimport prefetch
from ._proto cimport Buffer, grow

from . import compile_msdrg as layout
from .errors import CodesetError, InvalidFieldError, PoaLengthError

cdef extern from *:
    """
    #include <stdint.h>
    #define lowest_bit(x) __builtin_ctzll(x)
    #define several_bits(x) (((x) & ((x) - 1)) != 0)
    #define CODESET_HASH UINT64_C(0x9E3779B97F4A7C15)
    """
    const uint64_t HASH "CODESET_HASH"
    int lowest_bit(uint64_t x) noexcept nogil
    bint several_bits(uint64_t x) noexcept nogil
    Py_ssize_t PyUnicode_GET_LENGTH(object o) noexcept

DETAIL = OPTION_DETAIL
CODE_ORDER = OPTION_CODE_ORDER
NO_AFFECT = OPTION_NO_AFFECT
# Flags of a diagnosis as `trace` returns them.
FLAG_EXCLUDED = DX_EXCLUDED
FLAG_DEATH = DX_DEATH
FLAG_DOWNGRADED = DX_DOWNGRADED
FLAG_HAC_MET = DX_HAC_MET


# --- bits ---------------------------------------------------------------------------------------------------

cdef inline bint has_bit(const uint64_t* words, uint32_t bit) noexcept nogil:
    return (words[bit >> 6] >> (bit & 63)) & 1


cdef inline void set_bit(uint64_t* words, uint32_t bit) noexcept nogil:
    if bit != NO_BIT:
        words[bit >> 6] |= (<uint64_t>1) << (bit & 63)


cdef inline void clear_bit(uint64_t* words, uint32_t bit) noexcept nogil:
    words[bit >> 6] &= ~((<uint64_t>1) << (bit & 63))


cdef inline void add_words(uint64_t* to, const uint64_t* words) noexcept nogil:
    cdef int i
    for i in range(WORDS):
        to[i] |= words[i]


cdef inline const Slot* find_slot(const Slot* slots, int shift, uint64_t key) noexcept nogil:
    """The slot of ``key``; the empty slot that ended the probe when it is not there. Key 0 finds an empty
    slot."""
    cdef const Slot* slot = slots + ((key * HASH) >> shift)
    while slot.key != key and slot.key != 0:
        slot += 1
    return slot


# --- preparing a claim (sections 5 to 8) --------------------------------------------------------------------

cdef inline void fetch_codes(const Tables* t, const Claim* claim) noexcept nogil:
    """Ask for the slots of all codes at once: each by itself would be waited for."""
    cdef uint32_t i
    if claim.admit_given:
        prefetch(t.dx_slot + ((claim.admit * HASH) >> t.dx_shift))
    for i in range(claim.n_dx):
        prefetch(t.dx_slot + ((claim.dx[i] * HASH) >> t.dx_shift))
    for i in range(claim.n_px):
        prefetch(t.px_slot + ((claim.px[i] * HASH) >> t.px_shift))


cdef const uint8_t* find_diagnoses(const Tables* t, Scratch* s) noexcept nogil:
    """Look the diagnoses up, and ask for what will be read of them; return the row of ``exclusion`` of the principal,
    NULL if it excludes nothing.
    """
    cdef const Claim* claim = s.claim
    cdef const Slot* slot
    cdef Diagnosis* dx
    cdef const uint8_t* excluded = NULL
    cdef uint32_t i
    for i in range(s.n_dx):
        dx = s.dx + i
        memset(dx, 0, sizeof(Diagnosis))
        dx.key = claim.dx[i]
        dx.poa = claim.poa[i]
        dx.impact = AFFECTS_NONE
        dx.initial_usage = dx.final_usage = USAGE_NEITHER
        dx.poa_error = POA_ERROR_NOT_CHECKED
        slot = find_slot(t.dx_slot, t.dx_shift, dx.key)
        if dx.key == 0 or slot.key == 0:
            continue
        dx.scheme = slot.attributes
        dx.member = slot.member
        prefetch(t.scheme + dx.scheme)
        prefetch((t.scheme_sdx if i else t.scheme_pdx) + <Py_ssize_t>dx.scheme * WORDS)
        if s.options & OPTION_DETAIL:
            prefetch((t.mark_sdx if i else t.mark_pdx) + <Py_ssize_t>dx.scheme * WORDS)
        if i == 0 and slot.group:
            excluded = t.exclusion + slot.group * t.exclusion_stride
        if excluded != NULL:
            prefetch(excluded + (dx.member >> 3))
    return excluded


cdef void read_diagnoses(const Tables* t, Scratch* s) noexcept nogil:
    """Look the diagnoses up; apply exclusions; gather the atoms of diagnoses and of the claim."""
    cdef const Claim* claim = s.claim
    cdef const Scheme* scheme
    cdef Diagnosis* dx
    cdef const uint8_t* excluded = find_diagnoses(t, s)
    cdef uint32_t i, start
    cdef bint all_incident = True
    cdef uint64_t first
    memset(s.base, 0, sizeof(s.base))
    s.suppressed_mcc = s.suppressed_cc = ~(<uint64_t>0)
    s.pdx_mdc = -1
    s.sex_conflict = 0
    for i in range(s.n_dx):
        dx = s.dx + i
        scheme = t.scheme + dx.scheme
        if dx.scheme:
            dx.flags = DX_VALID
        if i == 0:
            if dx.scheme:
                s.pdx_mdc = scheme.mdc_male if claim.sex == SEX_MALE else scheme.mdc_female
                if scheme.flags & SCHEME_GENDERED and claim.sex == SEX_UNKNOWN:
                    s.sex_conflict = 1
                if not scheme.flags & SCHEME_INCIDENT:
                    all_incident = False
            else:
                all_incident = False
            add_words(s.base, t.scheme_pdx + <Py_ssize_t>dx.scheme * WORDS)
            continue
        # A code that is unknown to the grouper can still be a member of an exclusion group.
        if excluded != NULL and dx.member and (excluded[dx.member >> 3] >> (dx.member & 7)) & 1:
            dx.flags |= DX_EXCLUDED
        if not dx.scheme:
            # No names, no severity.
            continue
        dx.severity = scheme.severity
        dx.n_hacs = scheme.n_hacs
        add_words(s.base, t.scheme_sdx + <Py_ssize_t>dx.scheme * WORDS)
        if not scheme.flags & SCHEME_INCIDENT:
            all_incident = False
        if claim.discharge_status == 20 and scheme.flags & SCHEME_MCCALIVE:
            dx.flags |= DX_DEATH
        count_severity(t, s, dx)
        for start in range(dx.n_hacs):
            dx.hac_status[start] = HAC_NOT_ON_LIST

    # Atoms that are not names of codes.
    if s.n_dx == 0 or not s.dx[0].scheme:
        set_bit(s.base, t.known.invalid_pdx)
    if s.n_dx:
        first = s.dx[0].key >> 56
        if first == c"V" or first == c"W" or first == c"X" or first == c"Y":
            set_bit(s.base, t.known.pdx_ecode)
    if s.sex_conflict:
        set_bit(s.base, t.known.invalid_sex)
    if all_incident and s.n_dx:
        set_bit(s.base, t.known.incident)
    if s.pdx_mdc == 20:
        set_bit(s.base, t.known.mdc_20)
    set_bit(s.base, t.known.anydx)
    if claim.discharge_status != 20:
        set_bit(s.base, t.known.alive)
    if claim.discharge_status == 0:
        set_bit(s.base, t.known.invalid_dstat)
    elif claim.discharge_status == 7:
        set_bit(s.base, t.known.ama)
    elif claim.discharge_status == 20:
        set_bit(s.base, t.known.died)
    elif claim.discharge_status in (2, 5, 66, 82, 85, 94):
        set_bit(s.base, t.known.xfrnba)


cdef inline void count_severity(const Tables* t, Scratch* s, const Diagnosis* dx) noexcept nogil:
    """Let a secondary diagnosis count towards the claim's severity, unless it is excluded (10.1)."""
    if dx.flags & (DX_EXCLUDED | DX_DEATH | DX_HAC_MET):
        return
    if dx.severity == 2:
        s.suppressed_mcc &= t.scheme[dx.scheme].suppression
    elif dx.severity == 1:
        s.suppressed_cc &= t.scheme[dx.scheme].suppression


cdef inline uint8_t severity_under(const Scratch* s, uint8_t suppression) noexcept nogil:
    if not (s.suppressed_mcc >> suppression) & 1:
        return 2
    return 0 if (s.suppressed_cc >> suppression) & 1 else 1


cdef void sort_codes(const Tables* t, Scratch* s) noexcept nogil:
    """Order in which rules walk the codes (section 5). Insertion sorts: claims are short, and stability
    matters."""
    cdef uint32_t i, j, item
    cdef uint64_t key
    cdef uint8_t severity
    cdef uint32_t n = s.n_dx - 1 if s.n_dx else 0
    for i in range(n):
        s.dx_order[i] = i + 1
    for i in range(s.n_px):
        s.px_order[i] = i
    if s.options & OPTION_CODE_ORDER:
        return
    for i in range(1, n):
        item = s.dx_order[i]
        key = s.dx[item].key
        severity = s.dx[item].severity
        j = i
        while j and (
            s.dx[s.dx_order[j - 1]].severity < severity
            or (s.dx[s.dx_order[j - 1]].severity == severity and s.dx[s.dx_order[j - 1]].key > key)
        ):
            s.dx_order[j] = s.dx_order[j - 1]
            j -= 1
        s.dx_order[j] = item
    for i in range(1, s.n_px):
        item = s.px_order[i]
        key = s.px[item].key
        j = i
        while j and s.px[s.px_order[j - 1]].key > key:
            s.px_order[j] = s.px_order[j - 1]
            j -= 1
        s.px_order[j] = item


cdef void read_procedures(const Tables* t, Scratch* s) noexcept nogil:
    cdef const Slot* slot
    cdef Procedure* px
    cdef uint32_t i
    for i in range(s.n_px):
        px = s.px + i
        memset(px, 0, sizeof(Procedure))
        px.key = s.claim.px[i]
        px.impact = AFFECTS_NONE
        slot = find_slot(t.px_slot, t.px_shift, px.key)
        if px.key and slot.key:
            px.pattern = slot.attributes
            px.uses = slot.member
            prefetch(t.pattern + px.pattern)
            prefetch(t.pattern_words + <Py_ssize_t>px.pattern * WORDS)
    if s.n_px:
        s.px[0].flags = PX_FIRST


cdef void find_clusters(const Tables* t, Scratch* s) noexcept nogil:
    """Find the clusters whose choices are all on the claim, and suppress their members (section 7)."""
    cdef Procedure* px
    cdef uint32_t i, j, u, participating = 0
    cdef uint32_t c
    cdef Satisfied item
    cdef Py_ssize_t k, m
    s.n_satisfied = 0
    for i in range(s.n_px):
        participating += s.px[i].uses != 0
    if participating == 0:
        return
    for i in range(s.n_px):
        px = s.px + s.px_order[i]
        px.first_same = <uint16_t>i
        for j in range(i):
            if s.px[s.px_order[j]].key == px.key:
                px.first_same = <uint16_t>j
                break
    if s.now == 0 or s.now == 0xFFFFFFFFU:
        # They are many, and most claims have none.
        memset(s.stamp, 0, s.n_clusters * sizeof(uint32_t))
        s.now = 0
    s.now += 1
    for i in range(s.n_px):
        px = s.px + s.px_order[i]
        if not px.uses:
            continue
        for u in range(t.use_start[px.uses], t.use_start[px.uses + 1]):
            c = t.use[u].cluster
            if s.stamp[c] != s.now:
                s.stamp[c] = s.now
                s.seen[c] = 0
            if s.seen[c] == t.cluster[c].all_choices:
                continue
            s.seen[c] |= (<uint32_t>1) << t.use[u].choice
            if s.seen[c] == t.cluster[c].all_choices:
                # Kept sorted by cluster, that is by name.
                item.cluster = c
                item.stop = i
                k = s.n_satisfied
                while k and s.satisfied[k - 1].cluster > c:
                    s.satisfied[k] = s.satisfied[k - 1]
                    k -= 1
                s.satisfied[k] = item
                s.n_satisfied += 1
    for m in range(s.n_satisfied):
        for i in range(s.n_px):
            if is_member(t, s, m, s.px + i):
                s.px[i].suppressed |= t.cluster[s.satisfied[m].cluster].suppressed


cdef bint is_member(
    const Tables* t, const Scratch* s, Py_ssize_t satisfied, const Procedure* px
) noexcept nogil:
    """True if the procedure's code was used in completing the cluster."""
    cdef uint32_t u
    if not px.uses or px.first_same > s.satisfied[satisfied].stop:
        return False
    for u in range(t.use_start[px.uses], t.use_start[px.uses + 1]):
        if t.use[u].cluster == s.satisfied[satisfied].cluster:
            return True
    return False


cdef void compute_atoms(const Tables* t, Scratch* s) noexcept nogil:
    """Set the counting atoms (9.3) and complete the unsuppressed mask."""
    cdef uint32_t i
    cdef int c, n
    cdef Py_ssize_t k
    cdef uint8_t seen, new
    cdef uint64_t all_px[WORDS]
    cdef int joints = 0
    memset(all_px, 0, sizeof(all_px))
    for i in range(s.n_px):
        add_words(all_px, t.pattern_words + <Py_ssize_t>s.px[i].pattern * WORDS)
        joints |= t.pattern[s.px[i].pattern].bilateral

    s.trauma[0] = s.trauma[1] = -1
    n = 0
    seen = 0
    for k in range(s.n_dx):
        i = 0 if k == 0 else s.dx_order[k - 1]
        new = t.scheme[s.dx[i].scheme].trauma & ~seen
        if new:
            new &= -new
            seen |= new
            s.trauma[n] = i
            s.trauma_bit[n] = t.known.trauma[lowest_bit(new)]
            n += 1
            if n == 2:
                set_bit(s.base, t.known.multst)
                break

    if several_bits(joints):
        n = 0
        seen = 0
        for k in range(s.n_px):
            new = t.pattern[s.px[s.px_order[k]].pattern].bilateral & ~seen
            if new:
                new &= -new
                seen |= new
                s.joint_bit[n] = t.known.joint[lowest_bit(new)]
                n += 1
                if n == 2:
                    set_bit(s.base, t.known.bilateral)
                    break

    s.counter_true = 0
    for c in range(WORDS):
        if all_px[c] & t.counted[c]:
            for n in range(t.n_counters):
                if count_names(t, s, n, False):
                    s.counter_true |= (<uint64_t>1) << n
                    set_bit(s.base, t.counter[n].bit)
            break

    memcpy(s.full, s.base, sizeof(s.full))
    add_words(s.full, all_px)
    for k in range(s.n_satisfied):
        add_words(s.full, t.pattern_words + <Py_ssize_t>t.cluster[s.satisfied[k].cluster].pattern * WORDS)


cdef bint count_names(const Tables* t, Scratch* s, int index, bint flag) noexcept nogil:
    """True if the counter reaches its threshold; with ``flag``, flag the procedures that contributed.

    Vessels and stents stop looking once the threshold is reached; fusions count all procedures.
    """
    cdef const Counter* counter = t.counter + index
    cdef const uint64_t* words
    cdef Procedure* px
    cdef uint32_t i, j
    cdef int n, total = 0
    cdef uint8_t kinds = 0, contributed
    for i in range(s.n_px):
        px = s.px + s.px_order[i]
        words = t.pattern_words + <Py_ssize_t>px.pattern * WORDS
        if counter.companion != NO_BIT and not has_bit(words, counter.companion):
            continue
        contributed = 0
        for n in range(counter.n_names):
            if has_bit(words, counter.name_bit[n]):
                total += counter.weight[n]
                contributed |= 1 << n
        if contributed:
            kinds |= contributed
            if flag:
                # A set compared by content: of real duplicates only the first is flagged (9.4). The flags
                # count as they were before this evaluation; an earlier one may have told the duplicates
                # apart.
                for j in range(i):
                    if same_procedure(s.px + s.px_order[j], px):
                        break
                else:
                    px.flags |= PX_CONTRIBUTES
        if counter.flag != PX_FUSION and total >= counter.threshold:
            break
    if flag:
        for i in range(s.n_px):
            if s.px[i].flags & PX_CONTRIBUTES:
                s.px[i].flags = (s.px[i].flags & ~PX_CONTRIBUTES) | counter.flag
    if counter.both_kinds and kinds != (1 << counter.n_names) - 1:
        return False
    return total >= counter.threshold


cdef inline bint same_procedure(const Procedure* a, const Procedure* b) noexcept nogil:
    """Equal by content (9.4); suppression and clusters follow from the code."""
    return a.key == b.key and (a.flags & ~PX_CONTRIBUTES) == b.flags and a.impact == b.impact


cdef inline bint same_diagnosis(const Tables* t, const Diagnosis* a, const Diagnosis* b) noexcept nogil:
    """Equal by content, the code and its POA indicator aside (9.4)."""
    cdef int i
    if t.scheme[a.scheme].content != t.scheme[b.scheme].content or (a.scheme == 0) != (b.scheme == 0):
        return False
    if (
        a.flags != b.flags
        or a.impact != b.impact
        or a.initial_usage != b.initial_usage
        or a.final_usage != b.final_usage
        or a.poa_error != b.poa_error
        or a.marked_for != b.marked_for
    ):
        return False
    for i in range(a.n_hacs):
        if a.hac_status[i] != b.hac_status[i]:
            return False
    return True


# --- formulas (sections 9 to 11) ----------------------------------------------------------------------------

cdef void look_from(const Tables* t, Scratch* s, int mdc) noexcept nogil:
    """Build the mask as list ``mdc`` sees it: names of suppressed cluster members are hidden."""
    cdef uint32_t i
    cdef Py_ssize_t k
    if s.n_satisfied == 0:
        memcpy(s.mask, s.full, sizeof(s.mask))
        return
    memcpy(s.mask, s.base, sizeof(s.mask))
    for i in range(s.n_px):
        if not (s.px[i].suppressed >> mdc) & 1:
            add_words(s.mask, t.pattern_words + <Py_ssize_t>s.px[i].pattern * WORDS)
    for k in range(s.n_satisfied):
        add_words(s.mask, t.pattern_words + <Py_ssize_t>t.cluster[s.satisfied[k].cluster].pattern * WORDS)


cdef inline void set_severity(const Tables* t, uint64_t* mask, uint8_t severity) noexcept nogil:
    clear_bit(mask, t.known.mcc)
    clear_bit(mask, t.known.cc)
    clear_bit(mask, t.known.non_cc)
    set_bit(mask, t.known.mcc if severity == 2 else t.known.cc if severity == 1 else t.known.non_cc)


cdef void flag_codes(const Tables* t, Scratch* s, uint16_t bit, bint value) noexcept nogil:
    """Put on codes the flags that evaluating a special atom leaves (9.3)."""
    cdef int c
    cdef uint32_t i
    cdef bint same
    if bit == t.known.multst:
        if value:
            s.flagged = 1
            same = s.trauma[0] != 0 and same_diagnosis(t, s.dx + s.trauma[0], s.dx + s.trauma[1])
            s.dx[s.trauma[0]].flags |= DX_TRAUMA
            if not same:
                s.dx[s.trauma[1]].flags |= DX_TRAUMA
        return
    if bit == t.known.incident:
        if not value:
            s.flagged = 1
            for i in range(s.n_dx):
                c = 0 if i == 0 else s.dx_order[i - 1]
                if not t.scheme[s.dx[c].scheme].flags & SCHEME_INCIDENT:
                    s.dx[c].flags |= DX_NOT_INCIDENT
                    return
        return
    if value and s.counter_true:
        for c in range(t.n_counters):
            if t.counter[c].bit == bit:
                s.flagged = 1
                count_names(t, s, c, True)
                return


cdef bint is_true(const Tables* t, Scratch* s, const Step* program) noexcept nogil:
    """Run a formula's steps over the mask; the atoms met that were set are left in ``s.matched``."""
    cdef uint32_t at = 0
    cdef bint value
    cdef uint16_t bit
    s.n_matched = 0
    while at < STEP_TRUE:
        bit = program[at].bit
        value = has_bit(s.mask, bit)
        if value:
            s.matched[s.n_matched] = bit
            s.n_matched += 1
        if s.options & OPTION_DETAIL and (
            bit == t.known.incident or bit == t.known.multst or (value and s.counter_true)
        ):
            flag_codes(t, s, bit, value)
        at = program[at].if_true if value else program[at].if_false
    return at == STEP_TRUE


cdef inline void record_visit(const Tables* t, Scratch* s, int mdc, int32_t row) noexcept nogil:
    cdef Visit* visit
    if s.trace == NULL or s.trace.n_visits == MAX_VISITS:
        return
    visit = s.trace.visits + s.trace.n_visits
    s.trace.n_visits += 1
    visit.row = row
    visit.mdc = <int16_t>mdc
    memcpy(visit.mask, s.mask, sizeof(visit.mask))
    clear_bit(visit.mask, t.known.mcc)
    clear_bit(visit.mask, t.known.cc)
    clear_bit(visit.mask, t.known.non_cc)
    visit.suppressed_mcc = s.suppressed_mcc
    visit.suppressed_cc = s.suppressed_cc


cdef int32_t evaluate(const Tables* t, Scratch* s, int mdc) noexcept nogil:
    """The first true row of list ``mdc`` by rank, -1: none. Leaves its matched atoms and the severity it
    saw."""
    cdef uint64_t candidates[16]
    cdef uint64_t anchors, rows
    cdef const uint64_t* anchor
    cdef Py_ssize_t index, list_row, w, r
    cdef uint8_t severity, current = 255
    cdef const Row* row
    s.n_matched = 0
    if mdc < 0 or t.list_index[mdc] < 0:
        s.list_suppression = 0
        s.list_severity = severity_under(s, 0)
        return -1
    index = t.list_index[mdc]
    look_from(t, s, mdc)
    for w in range(t.row_words):
        candidates[w] = t.always_rows[index * t.row_words + w]
    for w in range(WORDS):
        anchors = s.mask[w] & t.list_anchors[index * WORDS + w]
        while anchors:
            r = (index * WORDS + w) * 64 + lowest_bit(anchors)
            anchor = t.anchor_rows + t.anchor_index[r] * t.row_words
            for r in range(t.row_words):
                candidates[r] |= anchor[r]
            anchors &= anchors - 1
    for w in range(t.row_words):
        rows = candidates[w]
        while rows:
            list_row = t.lists[index].row + w * 64 + lowest_bit(rows)
            rows &= rows - 1
            row = t.row + list_row
            severity = severity_under(s, row.suppression)
            if severity != current:
                current = severity
                set_severity(t, s.mask, severity)
            if is_true(t, s, t.step + row.program):
                s.list_suppression = row.suppression
                s.list_severity = severity
                record_visit(t, s, mdc, <int32_t>list_row)
                return <int32_t>list_row
    record_visit(t, s, mdc, -1)
    s.n_matched = 0
    s.list_suppression = t.lists[index].last_suppression
    s.list_severity = severity_under(s, s.list_suppression)
    return -1


cdef uint8_t return_code_of(const Tables* t, const Scratch* s) noexcept nogil:
    """The return code that the row just won asks for."""
    cdef int i
    cdef uint16_t bit
    for i in range(s.n_matched):
        bit = s.matched[i]
        if bit == t.known.invalid_pdx:
            return RETURN_INVALID_PDX
        if bit == t.known.pdx_ecode:
            return RETURN_DX_CANNOT_BE_PDX
        if bit == t.known.invalid_dstat:
            return RETURN_INVALID_DISCHARGE_STATUS
        if bit == t.known.invalid_sex:
            return RETURN_INVALID_SEX
    return RETURN_OK


cdef void keep_matched(const Scratch* s, Outcome* o) noexcept nogil:
    o.n_matched = s.n_matched
    memcpy(o.matched, s.matched, s.n_matched * sizeof(uint16_t))


cdef bint visit(const Tables* t, Scratch* s, int mdc, Outcome* o, int32_t* row) noexcept nogil:
    """Evaluate a list; a winner becomes the outcome's. False when it asks for a return code."""
    row[0] = evaluate(t, s, mdc)
    o.severity = s.list_severity
    o.suppression = s.list_suppression
    if row[0] >= 0:
        o.return_code = return_code_of(t, s)
        keep_matched(s, o)
        o.row = row[0]
    return o.return_code == RETURN_OK


cdef void run_pass(const Tables* t, Scratch* s, Outcome* o) noexcept nogil:
    """One grouping pass (section 11)."""
    cdef int32_t pre, re = -1, pdx = -1, row, previous
    cdef int visited[8]
    cdef int n = 1, step
    cdef bint ran = False
    visited[0] = 0
    o.row = -1
    o.return_code = RETURN_OK
    o.n_matched = o.n_pre_matched = 0
    if not visit(t, s, 0, o, &pre):
        return
    o.pre = pre
    o.n_pre_matched = o.n_matched
    memcpy(o.pre_matched, o.matched, o.n_matched * sizeof(uint16_t))
    for step in range(2):
        if step == 1 and pre < 0 and re < 0:
            ran = True
            if not visit(t, s, s.pdx_mdc, o, &pdx):
                return
            visited[n] = s.pdx_mdc
            n += 1
        previous = pdx if ran else pre
        if re >= 0 or previous < 0 or t.row[previous].reroute == 0:
            continue
        if not visit(t, s, t.row[previous].reroute, o, &row):
            return
        if row >= 0 and t.row[row].reroute:
            if not visit(t, s, t.row[row].reroute, o, &row):
                return
        visited[n] = t.row[previous].reroute
        n += 1
        re = row
    o.row = re if re >= 0 else pdx if ran else pre
    o.mdc = s.pdx_mdc
    if visited[n - 1] == 29:
        o.mdc = <int16_t>visited[n - 2]
    elif visited[n - 1] != 0:
        o.mdc = <int16_t>visited[n - 1]


# --- hospital-acquired conditions (section 13) --------------------------------------------------------------

cdef bint hac_criteria_met(const Tables* t, Scratch* s, uint8_t number) noexcept nogil:
    cdef uint32_t p
    for p in range(t.hac_start[number], t.hac_start[number + 1]):
        if is_true(t, s, t.hac_step + t.hac_program[p]):
            return True
    return False


cdef uint8_t process_hacs(const Tables* t, Scratch* s, bint* remembered, uint8_t* categories) noexcept nogil:
    """Decide every HAC entry of the secondary diagnoses; return the return code they force."""
    cdef const Claim* claim = s.claim
    cdef const Scheme* scheme
    cdef Diagnosis* dx
    cdef Diagnosis* first = NULL
    cdef uint32_t i, k, e
    cdef bint six_real = False, claim_bad = False, bad, any_kept, six_kept
    cdef bint six_bad = False
    cdef uint32_t met_numbers = 0, numbers = 0
    cdef uint8_t code = RETURN_OK, number
    cdef int display_show = 14      # row of hac06_show in HAC_DISPLAYS
    remembered[0] = False
    categories[0] = 0
    s.hac_met = 0
    memcpy(s.mask, s.full, sizeof(s.mask))
    for k in range(1, s.n_dx):
        dx = s.dx + s.dx_order[k - 1]
        if not dx.n_hacs:
            continue
        scheme = t.scheme + dx.scheme
        if first == NULL:
            first = dx
        if claim.hospital_status == HOSPITAL_EXEMPT:
            dx.poa_error = POA_ERROR_HOSPITAL_EXEMPT
            for e in range(dx.n_hacs):
                dx.hac_status[e] = HAC_EXEMPT
            continue
        bad = dx.poa == POA_BAD
        if dx.poa <= POA_W:
            dx.poa_error = POA_ERROR_YES_POA
        elif bad:
            dx.poa_error = POA_ERROR_NOT_RECOGNIZED
        else:
            dx.poa_error = POA_ERROR_NOT_POA
        for e in range(dx.n_hacs):
            if dx.poa <= POA_W:
                dx.hac_status[e] = HAC_NOT_MET
                continue
            if dx.flags & DX_EXCLUDED:
                dx.hac_status[e] = HAC_EXCLUSION
                continue
            number = scheme.hac_number[e]
            if bad:
                claim_bad = True
            if hac_criteria_met(t, s, number):
                dx.hac_status[e] = HAC_MET
                met_numbers |= (<uint32_t>1) << number
                if number == 6:
                    six_bad = six_bad or bad
                    if not scheme.flags & SCHEME_ON_SHOW_LIST:
                        six_real = True
            else:
                dx.hac_status[e] = HAC_NOT_MET

    for k in range(1, s.n_dx):
        dx = s.dx + s.dx_order[k - 1]
        scheme = t.scheme + dx.scheme
        for e in range(dx.n_hacs):
            if not six_real and scheme.hac_display[e] == display_show and dx.hac_status[e] != HAC_EXEMPT:
                dx.hac_status[e] = HAC_NOT_MET
            if dx.hac_status[e] == HAC_MET:
                numbers |= (<uint32_t>1) << scheme.hac_number[e]
                dx.flags |= DX_HAC_MET
                s.hac_met = 1
    for i in range(s.n_px):
        s.px[i].hac_usage = t.pattern[s.px[i].pattern].hac_usage & usage_bits(numbers)

    if met_numbers:
        remembered[0] = True
        if claim.hospital_status == HOSPITAL_NOT_EXEMPT:
            if (met_numbers >> 6) & 1 and six_real and six_bad:
                code = RETURN_HAC_MISSING_ONE_POA
            elif met_numbers & ~(<uint32_t>64) and claim_bad:
                code = RETURN_HAC_MISSING_ONE_POA
        else:
            # The reference counts secondary diagnoses with a condition that is always true; any two make it
            # multiple.
            if s.n_dx > 2:
                code = RETURN_HAC_MULTIPLE
            elif first.poa == POA_N or first.poa == POA_U:
                code = RETURN_HAC_POA_N_OR_U
            elif first.poa == POA_BAD:
                code = RETURN_HAC_POA_INVALID_OR_1

    # Output lists (13.4) and the categories met.
    numbers = 0
    for k in range(1, s.n_dx):
        dx = s.dx + k
        if not dx.n_hacs:
            continue
        scheme = t.scheme + dx.scheme
        any_kept = six_kept = False
        for e in range(dx.n_hacs):
            if dx.hac_status[e] == HAC_MET:
                number = scheme.hac_number[e]
                if number == 6 and six_kept:
                    continue
                six_kept = six_kept or number == 6
                numbers |= (<uint32_t>1) << number
            elif dx.hac_status[e] == HAC_NOT_MET:
                if dx.poa > POA_W:
                    continue
                dx.hac_out |= 1 << e
                any_kept = True
                break
            elif dx.hac_status[e] != HAC_EXEMPT and dx.hac_status[e] != HAC_EXCLUSION:
                continue
            dx.hac_out |= 1 << e
            any_kept = True
        if not any_kept:
            for e in range(dx.n_hacs if t.version >= 410 else 1):
                dx.hac_out |= 1 << e
    while numbers:
        categories[0] += 1
        numbers &= numbers - 1
    return code


cdef inline uint8_t usage_bits(uint32_t numbers) noexcept nogil:
    """HAC numbers as the bits of `hac_usage`: 8, 10, 11, 12, 13, 14."""
    return ((numbers >> 8) & 1) | ((numbers >> 9) & 0x3E)


# --- marking (section 14) -----------------------------------------------------------------------------------

cdef inline void touch_diagnosis(Diagnosis* dx, bint final) noexcept nogil:
    dx.impact = touched(dx.impact, final)


cdef inline void touch_procedure(Procedure* px, bint final) noexcept nogil:
    px.impact = touched(px.impact, final)
    px.marked = 1


cdef inline uint8_t touched(uint8_t impact, bint final) noexcept nogil:
    if not final:
        return AFFECTS_INITIAL
    return AFFECTS_BOTH if impact == AFFECTS_INITIAL or impact == AFFECTS_BOTH else AFFECTS_FINAL


cdef void matched_words(
    const Tables* t, Scratch* s, const uint16_t* matched, int n, uint64_t* words
) noexcept nogil:
    """The set of matched atoms; counting atoms are replaced by the names they met."""
    cdef int i, c, k
    cdef uint32_t p
    cdef uint16_t bit
    cdef int total
    cdef bint counted
    cdef const uint64_t* pattern
    memset(words, 0, WORDS * sizeof(uint64_t))
    for i in range(n):
        bit = matched[i]
        if bit == t.known.mdc_20:
            continue
        if bit == t.known.multst:
            set_bit(words, s.trauma_bit[0])
            set_bit(words, s.trauma_bit[1])
            continue
        if bit == t.known.bilateral:
            set_bit(words, s.joint_bit[0])
            set_bit(words, s.joint_bit[1])
            continue
        counted = False
        for c in range(t.n_counters):
            if t.counter[c].bit != bit:
                continue
            counted = True
            total = 0
            for p in range(s.n_px):
                pattern = t.pattern_words + <Py_ssize_t>s.px[s.px_order[p]].pattern * WORDS
                if t.counter[c].companion != NO_BIT and not has_bit(pattern, t.counter[c].companion):
                    continue
                for k in range(t.counter[c].n_names):
                    if has_bit(pattern, t.counter[c].name_bit[k]):
                        set_bit(words, t.counter[c].name_bit[k])
                        total += t.counter[c].weight[k]
                if t.counter[c].flag != PX_FUSION and total >= t.counter[c].threshold:
                    break
            break
        if not counted:
            set_bit(words, bit)


cdef void mark_diagnoses(const Tables* t, Scratch* s, const uint64_t* matched, bint final) noexcept nogil:
    """Give each matched atom to one secondary diagnosis that accounts for it (14.1)."""
    cdef uint64_t remaining[WORDS]
    cdef const uint64_t* own
    cdef uint64_t fits
    cdef uint32_t k, w, severity_bit
    cdef Diagnosis* dx
    for w in range(WORDS):
        remaining[w] = matched[w]
        if s.n_dx:
            remaining[w] &= ~t.mark_pdx[<Py_ssize_t>s.dx[0].scheme * WORDS + w]
    for k in range(1, s.n_dx):
        dx = s.dx + s.dx_order[k - 1]
        own = t.mark_sdx + <Py_ssize_t>dx.scheme * WORDS
        severity_bit = NO_BIT
        if dx.severity and not dx.flags & (DX_DOWNGRADED | DX_EXCLUDED | DX_DEATH):
            severity_bit = t.known.mcc if dx.severity == 2 else t.known.cc
        for w in range(WORDS):
            fits = own[w]
            if severity_bit != NO_BIT and severity_bit >> 6 == w:
                fits |= (<uint64_t>1) << (severity_bit & 63)
            fits &= remaining[w]
            if fits:
                touch_diagnosis(dx, final)
                dx.marked_for = <uint16_t>(w * 64 + lowest_bit(fits) + 1)
                remaining[w] &= ~(fits & -fits)
                break


cdef inline uint8_t usage_of(const Tables* t, const Diagnosis* dx, bint final) noexcept nogil:
    """How the severity of a secondary diagnosis was used (14.4)."""
    if dx.flags & DX_DEATH and not dx.flags & DX_EXCLUDED:
        return USAGE_NEITHER
    if final and dx.flags & DX_HAC_MET and not (t.version >= 411 and dx.flags & DX_DOWNGRADED):
        return USAGE_NEITHER
    if dx.severity == 0:
        return USAGE_NEITHER
    if dx.flags & DX_EXCLUDED:
        return USAGE_MCC_EXCLUDED if dx.severity == 2 else USAGE_CC_EXCLUDED
    if t.version >= 411 and dx.flags & DX_DOWNGRADED:
        return USAGE_MCC_EXCLUDED_BY_DRG_LOGIC if dx.severity == 2 else USAGE_CC_EXCLUDED_BY_DRG_LOGIC
    return USAGE_MCC if dx.severity == 2 else USAGE_CC


cdef inline bint has_all(const Tables* t, uint16_t pattern, const uint64_t* names) noexcept nogil:
    cdef int w
    for w in range(WORDS):
        if names[w] & ~t.pattern_words[<Py_ssize_t>pattern * WORDS + w]:
            return False
    return True


cdef inline bint has_name(const Tables* t, uint16_t pattern, uint32_t bit) noexcept nogil:
    return has_bit(t.pattern_words + <Py_ssize_t>pattern * WORDS, bit)


cdef inline bint is_operating_room(const Tables* t, const Procedure* px) noexcept nogil:
    return t.pattern[px.pattern].flags & PATTERN_OPERATING_ROOM


cdef void touch_members(const Tables* t, Scratch* s, Py_ssize_t satisfied, bint final) noexcept nogil:
    """Touch the members of a cluster; of equal codes only the first (14.6)."""
    cdef uint32_t k
    cdef Procedure* px
    for k in range(s.n_px):
        px = s.px + s.px_order[k]
        if px.first_same == k and is_member(t, s, satisfied, px):
            touch_procedure(px, final)


cdef bint mark_one_for_all(
    const Tables* t, Scratch* s, const uint64_t* names, int m, bint final
) noexcept nogil:
    """Touch one procedure, or one cluster's members, that has every matched name (14.5a). True if that
    settles it."""
    cdef uint32_t k
    cdef Py_ssize_t c
    cdef Procedure* px
    if s.n_px:
        px = s.px
        if (
            has_all(t, px.pattern, names)
            and not (px.suppressed >> m) & 1
            and (t.version < 410 or is_operating_room(t, px))
        ):
            touch_procedure(px, final)
            if t.version < 420 or not px.flags & PX_FUSION:
                return True
    for k in range(s.n_px):
        px = s.px + s.px_order[k]
        if t.version >= 410 and px.flags & PX_FIRST:
            continue
        if not (px.suppressed >> m) & 1 and has_all(t, px.pattern, names):
            touch_procedure(px, final)
            return True
    for c in range(s.n_satisfied):
        if has_all(t, t.cluster[s.satisfied[c].cluster].pattern, names):
            touch_members(t, s, c, final)
            return True
    return False


cdef void mark_for_name(
    const Tables* t, Scratch* s, uint32_t bit, int m, bint any_fusion, bint final
) noexcept nogil:
    """Touch what accounts for one matched name (14.5b)."""
    cdef uint32_t k, n_having = 0
    cdef Py_ssize_t c, cluster = -1
    cdef Procedure* px
    cdef Procedure* first = NULL
    cdef Procedure* first_other = NULL
    cdef Procedure* principal = s.px if s.n_px else NULL
    for k in range(s.n_px):
        px = s.px + s.px_order[k]
        if not (px.suppressed >> m) & 1 and has_name(t, px.pattern, bit):
            n_having += 1
            if first == NULL:
                first = px
            if first_other == NULL and px != principal:
                first_other = px
    for c in range(s.n_satisfied):
        if has_name(t, t.cluster[s.satisfied[c].cluster].pattern, bit):
            cluster = c
            break
    if bit == t.known.revision and n_having and cluster >= 0:
        touch_procedure(principal if has_name(t, principal.pattern, bit) else first, final)
        return
    if n_having >= 2:
        if not (t.version >= 420 and m == 8 and any_fusion):
            if (
                has_name(t, principal.pattern, bit)
                and not (principal.suppressed >> m) & 1
                and (t.version < 410 or is_operating_room(t, principal))
            ):
                touch_procedure(principal, final)
            else:
                touch_procedure(first_other if t.version >= 410 else first, final)
            return
        for k in range(s.n_px):
            px = s.px + s.px_order[k]
            if px.flags & PX_FUSION:
                touch_procedure(px, final)
    if n_having:
        touch_procedure(first, final)
    elif cluster >= 0:
        touch_members(t, s, cluster, final)


cdef void mark_procedures(
    const Tables* t, Scratch* s, const Outcome* o, const uint64_t* matched, bint drg_changed, bint final
) noexcept nogil:
    cdef uint64_t names[WORDS]
    cdef uint64_t left
    cdef uint32_t k, e, w
    cdef uint32_t numbers = 0
    cdef bint any_name = False, any_fusion = False
    cdef int m = s.pdx_mdc
    cdef int16_t drg = t.row[o.row].drg
    cdef Diagnosis* dx
    cdef Procedure* px
    if t.row[o.row].reroute:
        m = t.row[o.row].reroute
    elif 981 <= drg <= 983 or 987 <= drg <= 989:
        m = 29
    for w in range(WORDS):
        names[w] = matched[w] & t.unprefixed[w]
        any_name = any_name or names[w] != 0
    for k in range(s.n_px):
        any_fusion = any_fusion or s.px[k].flags & PX_FUSION != 0
    if any_name and not mark_one_for_all(t, s, names, m, final):
        for w in range(WORDS):
            left = names[w]
            while left:
                mark_for_name(t, s, w * 64 + lowest_bit(left), m, any_fusion, final)
                left &= left - 1
    if final and drg_changed:
        for k in range(1, s.n_dx):
            dx = s.dx + k
            for e in range(dx.n_hacs):
                if dx.hac_status[e] == HAC_MET:
                    numbers |= (<uint32_t>1) << t.scheme[dx.scheme].hac_number[e]
        for k in range(s.n_px):
            px = s.px + s.px_order[k]
            if px.hac_usage & usage_bits(numbers) and not (px.suppressed >> m) & 1:
                touch_procedure(px, final)


cdef void mark(const Tables* t, Scratch* s, const Outcome* o, bint drg_changed, bint final) noexcept nogil:
    """Say which codes the pass's winner rests on (section 14)."""
    cdef uint64_t matched[WORDS]
    cdef uint64_t pre[WORDS]
    cdef uint32_t k, w, n = 0
    cdef bint compute = not s.options & OPTION_NO_AFFECT
    cdef bint trauma = False, stents = False, vessels = False
    cdef Diagnosis* dx
    cdef Procedure* px
    cdef uint16_t stent_kind
    for k in range(s.n_px):
        s.px[k].marked = 0
    matched_words(t, s, o.matched, o.n_matched, matched)
    if compute:
        mark_diagnoses(t, s, matched, final)
        if final and drg_changed:
            for k in range(1, s.n_dx):
                if s.dx[k].flags & DX_HAC_MET:
                    touch_diagnosis(s.dx + k, final)
        s.dx[0].impact = AFFECTS_BOTH if final else AFFECTS_INITIAL
    for k in range(1, s.n_dx):
        dx = s.dx + k
        if final:
            dx.final_usage = usage_of(t, dx, True)
        else:
            dx.initial_usage = usage_of(t, dx, False)
    if compute:
        mark_procedures(t, s, o, matched, drg_changed, final)

    if s.dx[0].flags & DX_TRAUMA:
        touch_diagnosis(s.dx, final)
        n = 1
    matched_words(t, s, o.pre_matched, o.n_pre_matched, pre)
    for w in range(WORDS):
        trauma = trauma or pre[w] & t.trauma_atoms[w]
    if trauma:
        for k in range(1, s.n_dx):
            dx = s.dx + s.dx_order[k - 1]
            if dx.flags & DX_TRAUMA and n < 2:
                touch_diagnosis(dx, final)
                n += 1
    if t.row[o.row].drg == 794:
        for k in range(1, s.n_dx):
            if s.dx[k].flags & DX_NOT_INCIDENT:
                touch_diagnosis(s.dx + k, final)

    for k in range(4):
        stents = stents or (t.known.stent[k] != NO_BIT and has_bit(matched, t.known.stent[k]))
        vessels = vessels or (t.known.vessel[k] != NO_BIT and has_bit(matched, t.known.vessel[k]))
    if stents:
        for k in range(s.n_px):
            if s.px[k].flags & PX_STENT:
                touch_procedure(s.px + k, final)
        stent_kind = NO_BIT
        if has_bit(matched, t.known.arterial):
            if has_bit(matched, t.known.drug_stent):
                stent_kind = t.known.drug_stent
            elif has_bit(matched, t.known.plain_stent):
                stent_kind = t.known.plain_stent
        if stent_kind != NO_BIT:
            for k in range(s.n_px):
                px = s.px + k
                if px.marked or not has_name(t, px.pattern, t.known.arterial):
                    continue
                if has_name(t, px.pattern, stent_kind):
                    touch_procedure(px, final)
    if vessels:
        for k in range(s.n_px):
            if s.px[k].flags & PX_VESSEL:
                touch_procedure(s.px + k, final)


cdef void mark_without_final(const Tables* t, Scratch* s) noexcept nogil:
    """Final severity usage when a HAC return code left no final pass (14.9)."""
    cdef uint32_t k
    cdef Diagnosis* dx
    for k in range(1, s.n_dx):
        dx = s.dx + k
        if dx.severity == 0:
            continue
        if dx.flags & DX_EXCLUDED:
            dx.final_usage = USAGE_MCC_EXCLUDED if dx.severity == 2 else USAGE_CC_EXCLUDED
        elif t.version >= 411 and dx.flags & DX_DOWNGRADED:
            dx.final_usage = (
                USAGE_MCC_EXCLUDED_BY_DRG_LOGIC if dx.severity == 2 else USAGE_CC_EXCLUDED_BY_DRG_LOGIC
            )
        elif dx.flags & (DX_DEATH | DX_HAC_MET):
            dx.final_usage = USAGE_NEITHER
        else:
            dx.final_usage = USAGE_MCC if dx.severity == 2 else USAGE_CC


cdef void note_downgrades(const Tables* t, Scratch* s, uint8_t suppression) noexcept nogil:
    """Flag the diagnoses that the last formula's suppression set kept from counting (10.2)."""
    cdef uint32_t k
    cdef Diagnosis* dx
    for k in range(1, s.n_dx):
        dx = s.dx + k
        if dx.flags & DX_HAC_MET:
            continue
        if (t.scheme[dx.scheme].suppression >> suppression) & 1:
            dx.flags |= DX_DOWNGRADED
        else:
            dx.flags &= ~DX_DOWNGRADED


# --- the whole claim (section 4) ----------------------------------------------------------------------------

cdef inline void ungroupable(Grouping* g, uint8_t return_code) noexcept nogil:
    g.mdc = 0
    g.drg = g.base_drg = 999
    g.med_surg = MED_SURG_NONE
    g.severity = SEVERITY_NONE
    g.sdx_severity = SEVERITY_NON_CC
    g.return_code = return_code


cdef void describe(const Tables* t, const Outcome* o, Grouping* g) noexcept nogil:
    cdef const Row* row = t.row + o.row
    cdef int i
    cdef bint mcc = False, cc = False
    for i in range(o.n_matched):
        mcc = mcc or o.matched[i] == t.known.mcc
        cc = cc or o.matched[i] == t.known.cc
    g.mdc = o.mdc
    g.drg = row.drg
    g.base_drg = row.base_drg
    g.med_surg = row.med_surg
    g.severity = SEVERITY_NONE if row.drg == 998 else SEVERITY_NON_CC + o.severity
    g.sdx_severity = SEVERITY_MCC if mcc else SEVERITY_CC if cc else SEVERITY_NON_CC
    g.return_code = RETURN_OK


cdef int group(
    const Tables* t, Scratch* s, const Claim* claim, uint32_t options,
    Result* result, DiagnosisResult* dx_out, ProcedureResult* px_out,
) noexcept nogil:
    """Group one claim; 0, or RETURN_GROUPING_FAILED when the tables have no row for it.

    ``dx_out`` and ``px_out`` (one element a code) are written with OPTION_DETAIL only, and may be NULL
    without it.
    """
    cdef Outcome initial, final
    cdef uint8_t code, categories
    cdef bint remembered, changed
    cdef uint32_t k
    cdef const Slot* slot
    cdef bint detail = options & OPTION_DETAIL
    s.claim = claim
    s.options = options
    s.n_dx = claim.n_dx
    s.n_px = claim.n_px
    s.flagged = 0
    s.hac_met = 0
    result.error = 0
    result.hac_categories = 0
    result.hac_status = HAC_STATUS_NOT_APPLICABLE
    fetch_codes(t, claim)
    result.admit_flag = ADMIT_NOT_GIVEN
    if claim.admit_given:
        slot = find_slot(t.dx_slot, t.dx_shift, claim.admit)
        result.admit_flag = ADMIT_VALID if claim.admit and slot.key and slot.attributes else ADMIT_INVALID

    read_diagnoses(t, s)
    read_procedures(t, s)
    sort_codes(t, s)
    find_clusters(t, s)
    compute_atoms(t, s)

    run_pass(t, s, &initial)
    if s.trace != NULL:
        s.trace.n_initial = s.trace.n_visits
    if initial.return_code != RETURN_OK:
        ungroupable(&result.initial, initial.return_code)
        ungroupable(&result.final, initial.return_code)
        if detail:
            output(t, s, dx_out, px_out)
        return 0
    if initial.row < 0 or (t.row[initial.row].drg == 0 and t.version > 400):
        result.error = RETURN_GROUPING_FAILED
        return RETURN_GROUPING_FAILED
    describe(t, &initial, &result.initial)
    note_downgrades(t, s, initial.suppression)
    if detail:
        mark(t, s, &initial, False, False)

    code = process_hacs(t, s, &remembered, &categories)
    result.hac_categories = categories
    if code != RETURN_OK:
        ungroupable(&result.final, code)
        if detail:
            mark_without_final(t, s)
    else:
        # Only a changed severity pool, or flags left on duplicate codes, can make the final pass differ.
        if s.hac_met or s.flagged:
            s.suppressed_mcc = s.suppressed_cc = ~(<uint64_t>0)
            for k in range(1, s.n_dx):
                count_severity(t, s, s.dx + k)
            run_pass(t, s, &final)
            if final.return_code != RETURN_OK:
                ungroupable(&result.final, final.return_code)
                changed = True
            elif final.row < 0 or (t.row[final.row].drg == 0 and t.version > 400):
                result.error = RETURN_GROUPING_FAILED
                return RETURN_GROUPING_FAILED
            else:
                describe(t, &final, &result.final)
                note_downgrades(t, s, final.suppression)
                changed = t.row[final.row].drg != t.row[initial.row].drg
            if detail and final.return_code == RETURN_OK:
                mark(t, s, &final, changed, True)
        else:
            result.final = result.initial
            if detail:
                mark(t, s, &initial, False, True)
    if claim.hospital_status != HOSPITAL_EXEMPT and categories:
        if result.initial.drg == result.final.drg:
            result.hac_status = HAC_STATUS_FINAL_DRG_NO_CHANGE
        elif result.final.drg == 999:
            result.hac_status = HAC_STATUS_FINAL_DRG_UNGROUPABLE
        else:
            result.hac_status = HAC_STATUS_FINAL_DRG_CHANGES
    if detail:
        output(t, s, dx_out, px_out)
    return 0


cdef void output(
    const Tables* t, Scratch* s, DiagnosisResult* dx_out, ProcedureResult* px_out
) noexcept nogil:
    """Write the per-code results (section 15)."""
    cdef uint32_t k, e, i
    cdef Diagnosis* dx
    cdef DiagnosisResult* out
    cdef bint eleven_met = False
    for k in range(s.n_dx):
        dx = s.dx + k
        out = dx_out + k
        out.recognized = dx.flags & DX_VALID
        out.initial_usage = dx.initial_usage
        out.final_usage = dx.final_usage
        out.affects = dx.impact
        out.poa_error = dx.poa_error
        out.n_hacs = 0
        if k == 0:
            continue
        for e in range(dx.n_hacs):
            if not (dx.hac_out >> e) & 1:
                continue
            i = out.n_hacs
            out.hac_display[i] = t.scheme[dx.scheme].hac_display[e]
            out.hac_status[i] = dx.hac_status[e]
            out.n_hacs += 1
            if dx.hac_status[e] == HAC_MET and t.scheme[dx.scheme].hac_number[e] == 11:
                eleven_met = True
    if eleven_met and t.scheme[s.dx[0].scheme].flags & SCHEME_HAC11_PDX:
        dx_out[0].n_hacs = 1
        dx_out[0].hac_display[0] = 255
        dx_out[0].hac_status[0] = HAC_NOT_ON_LIST
    for k in range(s.n_px):
        px_out[k].recognized = t.pattern[s.px[k].pattern].flags & PATTERN_NAMED != 0
        px_out[k].operating_room = t.pattern[s.px[k].pattern].flags & PATTERN_OPERATING_ROOM
        px_out[k].affects = s.px[k].impact
        px_out[k].hac_usage = s.px[k].hac_usage


# --- tables of one version ----------------------------------------------------------------------------------

@cython.final
@cython.auto_pickle(False)
cdef class Grouper:
    """The verified tables of one MS-DRG version. Immutable; any number of threads may group from it.

    ``pack`` is an opened ``engine.pack.Pack`` of kind "msdrg". Raises PackCorruptError if an index in it
    points outside its array.
    """

    def __init__(self, pack):
        self.pack = pack
        self.version = pack.manifest.release
        self.tables.version = int(self.version.replace(".", ""))
        self._arrays = {}
        self._open()

    def _open(self):
        cdef Tables* t = &self.tables
        cdef const uint16_t[::1] known
        cdef const uint64_t[::1] unprefixed
        cdef int i, n
        known = self._array("known_bits", "<u2", (sizeof(KnownBits) // 2,))
        self._check("known_bits", (np.asarray(known) < 64 * WORDS) | (np.asarray(known) == NO_BIT))
        memcpy(&t.known, &known[0], sizeof(KnownBits))
        required = np.asarray(known)[[0, 1, 2, 16, 17, 18, *range(28, 42)]]
        self._check("known_bits", required != NO_BIT)
        unprefixed = self._array("unprefixed", "<u8", (WORDS,))
        memcpy(t.unprefixed, &unprefixed[0], sizeof(t.unprefixed))

        scheme = self._array("scheme", layout.SCHEME, (None,))
        n_schemes = len(scheme)
        self._check("scheme", n_schemes > 0)
        self._check("scheme", (scheme["n_hacs"] <= MAX_HACS) & (scheme["severity"] <= 2))
        self._check("scheme", scheme["hac_number"] <= 14)
        self._check("scheme", scheme["hac_display"] < len(layout.HAC_DISPLAYS))
        for mdc in ("mdc_male", "mdc_female"):
            self._check("scheme", (scheme[mdc] >= -1) & (scheme[mdc] < N_LISTS))
        t.scheme = <const Scheme*>self._pointer("scheme")
        for name in ("scheme_sdx", "scheme_pdx", "mark_sdx", "mark_pdx"):
            self._array(name, "<u8", (n_schemes, WORDS))
        t.scheme_sdx = <const uint64_t*>self._pointer("scheme_sdx")
        t.scheme_pdx = <const uint64_t*>self._pointer("scheme_pdx")
        t.mark_sdx = <const uint64_t*>self._pointer("mark_sdx")
        t.mark_pdx = <const uint64_t*>self._pointer("mark_pdx")
        exclusion = self._array("exclusion", "u1", (None, None))
        t.exclusion_stride = exclusion.shape[1]
        t.exclusion = <const uint8_t*>self._pointer("exclusion")
        self._slots("dx_slot", n_schemes, exclusion.shape[0], exclusion.shape[1] * 8, &t.dx_shift)
        t.dx_slot = <const Slot*>self._pointer("dx_slot")

        pattern = self._array("pattern", layout.PATTERN, (None,))
        n_patterns = len(pattern)
        self._check("pattern", n_patterns > 0)
        self._check("pattern", (pattern["bilateral"] < 64) & (pattern["hac_usage"] < 64))
        t.pattern = <const Pattern*>self._pointer("pattern")
        self._array("pattern_words", "<u8", (n_patterns, WORDS))
        t.pattern_words = <const uint64_t*>self._pointer("pattern_words")
        cluster = self._array("cluster", layout.CLUSTER, (None,))
        t.n_clusters = len(cluster)
        self._check("cluster", cluster["pattern"] < n_patterns)
        t.cluster = <const Cluster*>self._pointer("cluster")
        use = self._array("use", layout.CLUSTER_USE, (None,))
        self._check("use", (use["cluster"] < len(cluster)) & (use["choice"] < 32))
        t.use = <const ClusterUse*>self._pointer("use")
        start = self._array("use_start", "<u4", (None,))
        self._offsets("use_start", start, len(use))
        t.use_start = <const uint32_t*>self._pointer("use_start")
        self._slots("px_slot", n_patterns, 1, len(start) - 1, &t.px_shift)
        t.px_slot = <const Slot*>self._pointer("px_slot")

        lists = self._array("list", layout.LIST, (None,))
        rows = self._array("row", layout.ROW, (None,))
        steps = self._array("step", layout.STEP, (None,))
        always = self._array("always_rows", "<u8", (len(lists), None))
        t.row_words = always.shape[1]
        self._check("always_rows", t.row_words <= 16)
        list_index = self._array("list_index", "<i2", (N_LISTS,))
        self._check("list_index", (list_index >= -1) & (list_index < len(lists)))
        self._check("list", lists["row"].astype("i8") + lists["count"] <= len(rows))
        self._check("list", (lists["count"] <= 64 * t.row_words) & (lists["last_suppression"] < 64))
        self._check("row", (rows["reroute"] >= 0) & (rows["reroute"] < N_LISTS) & (rows["suppression"] < 64))
        self._programs("step", steps, rows["program"], "row")
        self._array("list_anchors", "<u8", (len(lists), WORDS))
        anchor_rows = self._array("anchor_rows", "<u8", (None, t.row_words))
        anchor_index = self._array("anchor_index", "<i4", (len(lists), 64 * WORDS))
        self._check("anchor_index", (anchor_index >= -1) & (anchor_index < len(anchor_rows)))
        # An anchor bit without a set of rows, or a set with rows beyond the list's own, would send a claim
        # out of bounds.
        list_anchors = self._arrays["list_anchors"].view("u1").reshape(len(lists), -1)
        bits = np.unpackbits(list_anchors, axis=1, bitorder="little")
        self._check("list_anchors", (bits == 0) | (anchor_index >= 0))
        for i in range(len(lists)):
            used = [always[i:i + 1], anchor_rows[anchor_index[i][anchor_index[i] >= 0]]]
            inside = np.unpackbits(np.concatenate(used).view("u1"), axis=1, bitorder="little")
            self._check("anchor_rows", inside[:, int(lists["count"][i]):] == 0)
        t.list_index = <const int16_t*>self._pointer("list_index")
        t.lists = <const List*>self._pointer("list")
        t.row = <const Row*>self._pointer("row")
        t.step = <const Step*>self._pointer("step")
        t.always_rows = <const uint64_t*>self._pointer("always_rows")
        t.list_anchors = <const uint64_t*>self._pointer("list_anchors")
        t.anchor_index = <const int32_t*>self._pointer("anchor_index")
        t.anchor_rows = <const uint64_t*>self._pointer("anchor_rows")

        hac_program = self._array("hac_program", "<u4", (None,))
        self._offsets("hac_start", self._array("hac_start", "<u4", (17,)), len(hac_program))
        self._programs("hac_step", self._array("hac_step", layout.STEP, (None,)), hac_program, "hac_program")
        t.hac_start = <const uint32_t*>self._pointer("hac_start")
        t.hac_program = <const uint32_t*>self._pointer("hac_program")
        t.hac_step = <const Step*>self._pointer("hac_step")
        counter = self._array("counter", layout.COUNTER, (None,))
        self._check("counter", len(counter) <= MAX_COUNTERS)
        self._check("counter", (counter["n_names"] <= 4) & (counter["bit"] < 64 * WORDS))
        named = np.arange(4) < counter["n_names"][:, None]
        self._check("counter", (counter["name_bit"] < 64 * WORDS) | ~named)
        self._check("counter", (counter["companion"] < 64 * WORDS) | (counter["companion"] == NO_BIT))
        t.counter = <const Counter*>self._pointer("counter")
        t.n_counters = len(counter)

        memset(t.counted, 0, sizeof(t.counted))
        memset(t.trauma_atoms, 0, sizeof(t.trauma_atoms))
        for i in range(t.n_counters):
            for n in range(t.counter[i].n_names):
                set_bit(t.counted, t.counter[i].name_bit[n])
        for i in range(8):
            set_bit(t.trauma_atoms, t.known.trauma[i])

    def _array(self, name, dtype, shape):
        array = self.pack.array(name, dtype, len(shape))
        if any(want is not None and got != want for got, want in zip(array.shape, shape, strict=True)):
            raise self.pack.corrupt(f"{name}.npy", f"its shape is {array.shape}, expected {shape}")
        self._arrays[name] = array
        return array

    def _check(self, name, condition):
        if not np.all(condition):
            raise self.pack.corrupt(f"{name}.npy", "it holds an index or a number out of range")

    def _offsets(self, name, offsets, end):
        self._check(name, len(offsets) > 0)
        self._check(name, np.diff(offsets.astype("i8")) >= 0)
        self._check(name, offsets[len(offsets) - 1] == end)

    def _programs(self, name, steps, starts, starts_name):
        """Every program ends within MAX_STEPS, because its steps only lead forward, and stays inside the
        array."""
        self._check(starts_name, starts < max(len(steps), 1))
        self._check(name, steps["bit"] < 64 * WORDS)
        starts = np.unique(starts)
        ends = np.append(starts[1:], len(steps))
        self._check(name, (ends - starts.astype("i8") <= MAX_STEPS) & (len(steps) > 0))
        if len(starts):
            self._check(starts_name, starts[0] == 0)
        own = np.arange(len(steps)) - np.repeat(starts, ends - starts)
        length = np.repeat(ends - starts, ends - starts)
        for target in ("if_true", "if_false"):
            inside = (steps[target] > own) & (steps[target] < length)
            self._check(name, inside | (steps[target] >= STEP_TRUE))

    cdef int _slots(
        self, str name, Py_ssize_t attributes, Py_ssize_t groups, Py_ssize_t members, int* shift
    ) except -1:
        """Check an open-addressing table and derive its hash shift; the last slot must be empty so that every
        probe ends."""
        slots = self._array(name, layout.SLOT, (None,))
        self._check(name, len(slots) >= 17)
        bits = (len(slots) - 1).bit_length() - 1
        self._check(name, slots["key"][len(slots) - 1] == 0)
        self._check(name, slots["attributes"] < attributes)
        self._check(name, slots["group"] < groups)
        self._check(name, slots["member"] < members)
        shift[0] = 64 - bits
        return 0

    def diagnosis(self, str code):
        """Row of ``scheme`` that ``code`` has, 0 if it is not a diagnosis of the version."""
        return self._attributes(self.tables.dx_slot, self.tables.dx_shift, code)

    def procedure(self, str code):
        """Row of ``pattern`` that ``code`` has, 0 if it is not a procedure of the version."""
        return self._attributes(self.tables.px_slot, self.tables.px_shift, code)

    cdef int _attributes(self, const Slot* slots, int shift, str code) except -1:
        cdef Py_ssize_t length
        cdef const char* text = ascii_of(code, "code", &length)
        cdef uint64_t key = key_of(text, length) if text != NULL else 0
        cdef const Slot* slot = find_slot(slots, shift, key)
        return slot.attributes if key and slot.key else 0

    cdef const void* _pointer(self, str name) except? NULL:
        cdef const unsigned char[::1] view
        array = self._arrays[name]
        if array.size == 0:
            # Never read: the counts say so.
            return NULL
        view = array.reshape(-1).view("u1")
        return &view[0]


# --- claims from Python -------------------------------------------------------------------------------------

cdef struct ClaimRow:
    uint64_t admit
    uint32_t dx
    uint32_t n_dx
    uint32_t px
    uint32_t n_px
    int16_t grouper             # -1: the claim has an error
    uint8_t admit_given
    uint8_t sex
    uint8_t hospital_status
    uint8_t discharge_status


SEXES = {
    None: SEX_UNKNOWN, 0: SEX_UNKNOWN, 1: SEX_MALE, 2: SEX_FEMALE, 3: SEX_UNKNOWN,
    "SEX_UNSPECIFIED": SEX_UNKNOWN, "SEX_MALE": SEX_MALE, "SEX_FEMALE": SEX_FEMALE,
    "SEX_UNKNOWN": SEX_UNKNOWN,
    "MALE": SEX_MALE, "FEMALE": SEX_FEMALE, "UNKNOWN": SEX_UNKNOWN,
}
HOSPITAL_STATUSES = {
    None: HOSPITAL_NOT_EXEMPT, 0: HOSPITAL_NOT_EXEMPT, 1: HOSPITAL_NOT_EXEMPT, 2: HOSPITAL_EXEMPT,
    3: HOSPITAL_UNKNOWN,
    "HOSPITAL_STATUS_UNSPECIFIED": HOSPITAL_NOT_EXEMPT, "HOSPITAL_STATUS_NOT_EXEMPT": HOSPITAL_NOT_EXEMPT,
    "HOSPITAL_STATUS_EXEMPT": HOSPITAL_EXEMPT, "HOSPITAL_STATUS_UNKNOWN": HOSPITAL_UNKNOWN,
    "NOT_EXEMPT": HOSPITAL_NOT_EXEMPT, "EXEMPT": HOSPITAL_EXEMPT, "UNKNOWN": HOSPITAL_UNKNOWN,
}
# Every other number is treated as no discharge status, as the reference does (section 1).
DISCHARGE_STATUSES = frozenset(
    (*range(1, 8), 20, 21, 30, 43, 50, 51, *range(61, 67), 69, 70, *range(81, 96))
)

cdef uint8_t DISCHARGE_STATUS[256]
memset(DISCHARGE_STATUS, 0, sizeof(DISCHARGE_STATUS))
for _number in DISCHARGE_STATUSES:
    DISCHARGE_STATUS[<int>_number] = _number

cdef uint8_t POA_OF[256]
memset(POA_OF, POA_BAD, sizeof(POA_OF))
POA_OF[c"Y"] = POA_Y
POA_OF[c"W"] = POA_W
POA_OF[c"N"] = POA_N
POA_OF[c"U"] = POA_U

# Upper case of the characters a claim's code may have; 0: none may. Pseudo codes of clusters have an @.
cdef uint8_t UPPER[256]
memset(UPPER, 0, sizeof(UPPER))
for _number in range(33, 127):
    UPPER[<int>_number] = ord(chr(_number).upper())
UPPER[c" "] = UPPER[c"."] = 1


cdef uint64_t key_of(const char* text, Py_ssize_t length) noexcept nogil:
    """Key of a code on a claim: upper case, dots and blanks dropped; 0 for what cannot be a code."""
    cdef uint64_t key = 0
    cdef Py_ssize_t i
    cdef int n = 0
    cdef uint8_t character
    for i in range(length):
        character = UPPER[<uint8_t>text[i]]
        if character <= 1:
            if character == 0:
                return 0
            continue
        if n == 8:
            return 0
        key = (key << 8) | character
        n += 1
    return key << (8 * (8 - n)) if n else 0


cdef void poa_of(const char* text, Py_ssize_t count, uint8_t* poa) noexcept nogil:
    cdef Py_ssize_t i
    if text == NULL:
        memset(poa, POA_BAD, count)
        return
    for i in range(count):
        poa[i] = POA_OF[<uint8_t>text[i]]


@cython.final
@cython.auto_pickle(False)
cdef class ClaimBatch(Layout):
    """Claims, checked and laid out for grouping.

    ``claims`` is a sequence of mappings or of objects with attributes of the same names; ``resolve(version,
    discharge_date)`` returns the number of the grouper to use, or raises CodesetError. What is wrong with a
    claim is kept in ``errors`` (by position) and keeps nothing else from being grouped. ``later``: another batch is to
    be made beside this one, and until then this one has no claims.
    """

    cdef Buffer poa             # POA_* of each diagnosis
    cdef uint32_t most_dx, most_px
    cdef dict _resolved
    cdef object _resolve

    def __cinit__(self, claims, resolve, *, bint later=False):
        self._resolved = {}
        self._resolve = resolve
        self.begin(GROUPER, claims, sizeof(ClaimRow), sizeof(uint64_t), sizeof(uint64_t))
        if not later:
            self.read()

    def __dealloc__(self):
        free(self.poa.at)

    def grouper(self, Py_ssize_t index):
        """Number of the grouper that ``resolve`` gave for claim ``index``; -1 if the claim has an error."""
        if not 0 <= index < self.n:
            raise IndexError(index)
        return self.row(index).grouper

    cdef inline ClaimRow* row(self, Py_ssize_t i) noexcept nogil:
        return <ClaimRow*>self.rows.at + i

    cdef ClaimRow* begin_row(self, Py_ssize_t i) noexcept:
        cdef ClaimRow* row = self.row(i)
        memset(row, 0, sizeof(ClaimRow))
        row.dx = <uint32_t>(self.dx.size // <Py_ssize_t>sizeof(uint64_t))
        row.px = <uint32_t>(self.px.size // <Py_ssize_t>sizeof(uint64_t))
        return row

    cdef void fail(self, Py_ssize_t i) noexcept:
        self.begin_row(i).grouper = -1

    cdef int lay_out(self, Py_ssize_t i, ClaimFields fields) except -1:
        cdef ClaimRow* row = self.begin_row(i)
        cdef object admit = fields.admit_diagnosis, poa = fields.poa
        cdef Py_ssize_t length, count
        cdef const char* text
        cdef long number
        row.grouper = self.resolve(fields.version, fields.discharge_date)
        row.sex = one_of(SEXES, fields.sex, "sex")
        row.hospital_status = one_of(HOSPITAL_STATUSES, fields.hospital_status, "hospital_status")
        number = number_of(fields.discharge_status, "discharge_status", "the patient discharge status code", 0)
        row.discharge_status = DISCHARGE_STATUS[number] if number < 256 else 0
        if admit is not None:
            text = ascii_of(admit, "admit_diagnosis", &length)
            row.admit_given = length != 0 and admit.lower() != "null"
            row.admit = key_of(text, length) if text != NULL else 0
        row.n_dx = self.add(fields.diagnoses, "diagnoses", &self.dx)
        row.n_px = self.add(fields.procedures, "procedures", &self.px)
        self.most_dx = max(self.most_dx, row.n_dx)
        self.most_px = max(self.most_px, row.n_px)
        self.poa.size = row.dx
        if not grow(&self.poa, row.n_dx):
            raise MemoryError
        if poa is None or (PyUnicode_Check(poa) and PyUnicode_GET_LENGTH(poa) == 0):
            poa_of(NULL, row.n_dx, self.poa.at + row.dx)
            return 0
        if not PyUnicode_Check(poa):
            raise InvalidFieldError(
                "poa: expected a string with one present-on-admission character per diagnosis, "
                f"got {type(poa).__name__}",
                field="poa",
            )
        count = PyUnicode_GET_LENGTH(poa)
        if count != row.n_dx:
            raise PoaLengthError(
                f"poa has {count} characters for {row.n_dx} diagnoses; give one per diagnosis (a blank where "
                "there is none), or none at all",
                field="poa",
            )
        text = ascii_of(poa, "poa", &length)
        poa_of(text, row.n_dx, self.poa.at + row.dx)
        return 0

    cdef int16_t resolve(self, object version, object date) except -2:
        cdef object key = version if version else date
        cdef PyObject* found
        cdef object number
        try:
            found = PyDict_GetItem(self._resolved, key)
        except TypeError:
            found = NULL
        if found != NULL:
            number = <object>found
        else:
            if version is not None and not isinstance(version, str):
                raise InvalidFieldError(
                    f"version: expected a string like '43.1', got {type(version).__name__}",
                    field="version",
                )
            try:
                number = self._resolve(version or "", date)
            except CodesetError as error:
                number = error
            if isinstance(key, (str, int)):
                self._resolved[key] = number
        if isinstance(number, CodesetError):
            # A fresh one each time: an exception carries the traceback of its last raise.
            raise type(number)(*number.args, field=number.field)
        return number

    cdef uint32_t add(self, object codes, str field, Buffer* keys) except? 0xFFFFFFFF:
        """Append the keys of ``codes``; returns how many."""
        cdef list items = codes_of(codes, field)
        cdef Py_ssize_t i, length, count = len(items)
        cdef const char* text
        cdef uint64_t* key
        if not grow(keys, count * sizeof(uint64_t)):
            raise MemoryError
        key = <uint64_t*>(keys.at + keys.size)
        for i in range(count):
            text = ascii_of(items[i], field, &length)
            key[i] = key_of(text, length) if text != NULL else 0
        keys.size += count * sizeof(uint64_t)
        return <uint32_t>count


# --- running a batch ----------------------------------------------------------------------------------------

GROUPING_DTYPE = np.dtype(
    [
        ("mdc", "<i2"), ("drg", "<i2"), ("base_drg", "<i2"), ("med_surg", "u1"), ("severity", "u1"),
        ("sdx_severity", "u1"), ("return_code", "u1"),
    ]
)
RESULT_DTYPE = np.dtype(
    [
        ("initial_grouping", GROUPING_DTYPE), ("final_grouping", GROUPING_DTYPE), ("hac_status", "u1"),
        ("hac_categories", "u1"), ("admit_diagnosis_flag", "u1"), ("error", "u1"),
    ]
)
DIAGNOSIS_DTYPE = np.dtype(
    [
        ("recognized", "u1"), ("initial_severity", "u1"), ("final_severity", "u1"), ("affects_drg", "u1"),
        ("poa_error", "u1"), ("n_hacs", "u1"), ("hac_display", "u1", (4,)), ("hac_status", "u1", (4,)),
    ]
)
PROCEDURE_DTYPE = np.dtype(
    [("recognized", "u1"), ("operating_room", "u1"), ("affects_drg", "u1"), ("hac_usage", "u1")]
)

assert GROUPING_DTYPE.itemsize == sizeof(Grouping)
assert RESULT_DTYPE.itemsize == sizeof(Result)
assert DIAGNOSIS_DTYPE.itemsize == sizeof(DiagnosisResult)
assert PROCEDURE_DTYPE.itemsize == sizeof(ProcedureResult)


cdef int make_room(Scratch* s, Py_ssize_t dx, Py_ssize_t px, Py_ssize_t clusters) except -1 nogil:
    memset(s, 0, sizeof(Scratch))
    # Of what is not there, too, there is a first.
    dx += 1
    px += 1
    # In one piece, what is aligned to eight bytes first.
    s.dx = <Diagnosis*>malloc(
        dx * sizeof(Diagnosis) + px * sizeof(Procedure) + clusters * sizeof(Satisfied)
        + (dx + px + 2 * clusters) * sizeof(uint32_t)
    )
    if s.dx == NULL:
        with gil:
            raise MemoryError
    s.px = <Procedure*>(s.dx + dx)
    s.satisfied = <Satisfied*>(s.px + px)
    s.dx_order = <uint32_t*>(s.satisfied + clusters)
    s.px_order = s.dx_order + dx
    s.seen = s.px_order + px
    s.stamp = s.seen + clusters
    s.n_clusters = clusters
    return 0


cdef void give_back(Scratch* s) noexcept nogil:
    free(s.dx)


cdef inline void claim_of(ClaimBatch batch, const ClaimRow* row, Claim* claim) noexcept nogil:
    claim.dx = <const uint64_t*>batch.dx.at + row.dx
    claim.poa = batch.poa.at + row.dx
    claim.px = <const uint64_t*>batch.px.at + row.px
    claim.n_dx = row.n_dx
    claim.n_px = row.n_px
    claim.admit = row.admit
    claim.admit_given = row.admit_given
    claim.sex = row.sex
    claim.hospital_status = row.hospital_status
    claim.discharge_status = row.discharge_status


def run(ClaimBatch batch, list groupers, uint32_t options):
    """Group a batch; return (results, diagnoses, procedures, first diagnosis of each claim, first procedure
    of each claim).

    ``results`` is an array of RESULT_DTYPE, one element a claim (all zero where the batch has an error). With
    OPTION_DETAIL in
    ``options``, ``diagnoses`` and ``procedures`` are arrays of DIAGNOSIS_DTYPE and PROCEDURE_DTYPE, all
    claims' codes one after the other; without it they are empty. The GIL is released for the whole run.
    """
    cdef Py_ssize_t i, n = batch.n
    cdef bint detail = options & OPTION_DETAIL
    cdef const Tables* tables[64]
    cdef Py_ssize_t clusters = 0
    cdef Scratch scratch
    cdef Claim claim
    cdef ClaimRow* row
    cdef const Tables* t
    if len(groupers) > 64:
        raise ValueError("at most 64 grouper versions at once")
    for i in range(len(groupers)):
        tables[i] = &(<Grouper?>groupers[i]).tables
        clusters = max(clusters, tables[i].n_clusters)
    results = np.zeros(n, RESULT_DTYPE)
    cdef Py_ssize_t n_dx = batch.dx.size // <Py_ssize_t>sizeof(uint64_t)
    cdef Py_ssize_t n_px = batch.px.size // <Py_ssize_t>sizeof(uint64_t)
    diagnoses = np.zeros(n_dx if detail else 0, DIAGNOSIS_DTYPE)
    procedures = np.zeros(n_px if detail else 0, PROCEDURE_DTYPE)
    starts = np.zeros((2, n + 1), np.uint32)
    cdef unsigned char[::1] result_bytes = results.view("u1") if n else np.zeros(1, "u1")
    cdef unsigned char[::1] dx_bytes = diagnoses.view("u1") if len(diagnoses) else np.zeros(1, "u1")
    cdef unsigned char[::1] px_bytes = procedures.view("u1") if len(procedures) else np.zeros(1, "u1")
    cdef uint32_t[:, ::1] start = starts
    cdef Result* result = <Result*>&result_bytes[0]
    cdef DiagnosisResult* dx_out = <DiagnosisResult*>&dx_bytes[0]
    cdef ProcedureResult* px_out = <ProcedureResult*>&px_bytes[0]
    try:
        make_room(&scratch, batch.most_dx, batch.most_px, clusters)
        with nogil:
            for i in range(n):
                row = batch.row(i)
                start[0, i] = row.dx
                start[1, i] = row.px
                if row.grouper < 0:
                    continue
                t = tables[row.grouper]
                claim_of(batch, row, &claim)
                group(
                    t, &scratch, &claim, options, result + i,
                    dx_out + row.dx if detail else NULL, px_out + row.px if detail else NULL,
                )
    finally:
        give_back(&scratch)
    start[0, n] = <uint32_t>n_dx
    start[1, n] = <uint32_t>n_px
    return results, diagnoses, procedures, starts


def trace(ClaimBatch batch, Grouper grouper, uint32_t options):
    """Group the only claim of ``batch`` with a recorder; return what the walk left behind.

    A dict with ``visits`` (one tuple a formula list looked at: MDC number, winning row or -1, mask as bytes,
    suppression sets under which no MCC and no CC counts), ``initial`` (how many of the visits belong to the initial
    pass), ``diagnoses`` (flags, severity 0 to 2, HAC statuses), ``procedures`` (numbers of the lists in which the
    procedure's own names are hidden) and ``clusters`` (cluster, positions of its members in the claim). Same code path
    as ``run``.
    """
    cdef Scratch scratch
    cdef Trace visits
    cdef Claim claim
    cdef Result result
    cdef ClaimRow* row = batch.row(0)
    cdef Py_ssize_t i, k
    cdef Diagnosis* dx
    if batch.n != 1 or row.grouper < 0:
        raise ValueError("expected a batch of one claim without error")
    memset(&visits, 0, sizeof(visits))
    dx_out = np.zeros(row.n_dx + 1, DIAGNOSIS_DTYPE)
    px_out = np.zeros(row.n_px + 1, PROCEDURE_DTYPE)
    cdef unsigned char[::1] dx_bytes = dx_out.view("u1")
    cdef unsigned char[::1] px_bytes = px_out.view("u1")
    try:
        make_room(&scratch, row.n_dx, row.n_px, grouper.tables.n_clusters)
        scratch.trace = &visits
        claim_of(batch, row, &claim)
        group(
            &grouper.tables, &scratch, &claim, options | OPTION_DETAIL, &result,
            <DiagnosisResult*>&dx_bytes[0], <ProcedureResult*>&px_bytes[0],
        )
        looks = []
        for i in range(visits.n_visits):
            looks.append((
                visits.visits[i].mdc,
                visits.visits[i].row,
                (<char*>visits.visits[i].mask)[:sizeof(visits.visits[i].mask)],
                visits.visits[i].suppressed_mcc,
                visits.visits[i].suppressed_cc,
            ))
        diagnoses = []
        for i in range(row.n_dx):
            dx = scratch.dx + i
            diagnoses.append((dx.flags, dx.severity, [dx.hac_status[k] for k in range(dx.n_hacs)]))
        procedures = []
        for i in range(row.n_px):
            procedures.append([k for k in range(N_LISTS) if (scratch.px[i].suppressed >> k) & 1])
        clusters = []
        for k in range(scratch.n_satisfied):
            members = [i for i in range(row.n_px) if is_member(&grouper.tables, &scratch, k, scratch.px + i)]
            clusters.append((scratch.satisfied[k].cluster, members))
    finally:
        give_back(&scratch)
    return {
        "visits": looks, "initial": visits.n_initial, "diagnoses": diagnoses, "procedures": procedures,
        "clusters": clusters,
    }
