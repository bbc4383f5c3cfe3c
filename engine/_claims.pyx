"""Fields of claims as Python gives them, checked. See the .pxd; nothing here is of use to Python code."""

cimport cython
from cpython.bool cimport PyBool_Check
from cpython.dict cimport PyDict_GetItem
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_Check
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_Check
from libc.stdlib cimport free
from libc.string cimport memset

from ._proto cimport grow

from .errors import CodesetError, InvalidFieldError

cdef extern from *:
    int PyUnicode_IS_COMPACT_ASCII(object o) noexcept
    const char* PyUnicode_1BYTE_DATA(object o) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object o) noexcept


cdef const char* ascii_of(object value, str field, Py_ssize_t* length) except? NULL:
    """The characters of a string, NULL where they are not all ASCII."""
    if not PyUnicode_Check(value):
        raise InvalidFieldError(f"{field}: expected a string, got {type(value).__name__}", field=field)
    length[0] = PyUnicode_GET_LENGTH(value)
    if not PyUnicode_IS_COMPACT_ASCII(value):
        return NULL
    return PyUnicode_1BYTE_DATA(value)


cdef uint8_t one_of(dict values, object value, str field) except 0:
    cdef PyObject* found = NULL
    if not isinstance(value, bool) and isinstance(value, (int, str, type(None))):
        found = PyDict_GetItem(values, value)
    if found == NULL:
        names = ", ".join(sorted(name for name in values if isinstance(name, str)))
        raise InvalidFieldError(
            f"{field}: expected one of {names} or its number, got another {type(value).__name__}",
            field=field,
        )
    return <object>found


cdef list codes_of(object codes, str field):
    """The codes of a claim, none for None. What they are is not looked at."""
    cdef list items
    if codes is None:
        return []
    if type(codes) is list:
        items = codes
    elif isinstance(codes, (str, bytes, dict)) or not hasattr(codes, "__len__"):
        raise InvalidFieldError(f"{field}: expected a list of code strings, got {type(codes).__name__}", field=field)
    else:
        items = list(codes)
    if len(items) > 65535:
        raise InvalidFieldError(
            f"{field}: {len(items)} codes on one claim; at most 65,535 are accepted", field=field
        )
    return items


cdef long number_of(object value, str field, str what, long least) except? -1:
    cdef int overflow = 0
    cdef long number
    if value is None:
        return 0
    if not PyLong_Check(value) or PyBool_Check(value):
        raise InvalidFieldError(
            f"{field}: expected a whole number ({what}), got {type(value).__name__}", field=field
        )
    number = PyLong_AsLongAndOverflow(value, &overflow)
    if overflow or not least <= number < <long>1 << 31:
        raise InvalidFieldError(
            f"{field}: expected a whole number from {least} to 2147483647 ({what}), got one outside", field=field
        )
    return number


# --- claims -------------------------------------------------------------------------------------------------

@cython.final
@cython.auto_pickle(False)
cdef class ClaimFields:
    """The fields of one claim as Python gives them."""

    cdef int take(self, object claim, int readers) except -1:
        """Take the fields that ``readers`` ask for from a mapping or from an object's attributes."""
        cdef dict items
        cdef object id
        if isinstance(claim, dict):
            items = <dict>claim
            self.discharge_date = items.get("discharge_date")
            self.sex = items.get("sex")
            self.discharge_status = items.get("discharge_status")
            self.admit_diagnosis = items.get("admit_diagnosis")
            self.diagnoses = items.get("diagnoses")
            self.procedures = items.get("procedures")
            self.age = items.get("age")
            self.length_of_stay = items.get("length_of_stay")
            if readers & GROUPER:
                self.version = items.get("version")
                self.hospital_status = items.get("hospital_status")
                self.poa = items.get("poa")
                # They never influence an MS-DRG, but what stands there is to be a number.
                number_of(self.age, "age", "years", 0)
                number_of(self.length_of_stay, "length_of_stay", "days", 0)
            if readers & EDITOR:
                self.icd_version = items.get("icd_version")
            id = items.get("claim_id")
            if id is not None and not isinstance(id, str):
                raise InvalidFieldError(f"claim_id: expected a string, got {type(id).__name__}", field="claim_id")
            return 0
        try:
            self.discharge_date = claim.discharge_date
            self.sex = claim.sex
            self.discharge_status = claim.discharge_status
            self.admit_diagnosis = claim.admit_diagnosis
            self.diagnoses = claim.diagnoses
            self.procedures = claim.procedures
            if readers & GROUPER:
                self.version = claim.version
                self.hospital_status = claim.hospital_status
                self.poa = claim.poa
            if readers & EDITOR:
                self.age = claim.age
                self.length_of_stay = claim.length_of_stay
        except AttributeError as error:
            raise InvalidFieldError(
                "a claim is a mapping or has the attributes of InpatientClaim; "
                f"got {type(claim).__name__} ({error})"
            ) from None
        if readers & EDITOR:
            self.icd_version = getattr(claim, "icd_version", None)
            if type(claim) is not self._kind:
                self._kind = type(claim)
                self._has_presence = hasattr(claim, "HasField")
            if self._has_presence:
                # In a protobuf message a number that is not given reads as 0.
                if not self.age and not claim.HasField("age"):
                    self.age = None
                if not self.discharge_status and not claim.HasField("discharge_status"):
                    self.discharge_status = None
                if not self.length_of_stay and not claim.HasField("length_of_stay"):
                    self.length_of_stay = None
        return 0


@cython.auto_pickle(False)
cdef class Layout:
    """Claims, checked and laid out as structs for one reader, which is a subclass."""

    def __dealloc__(self):
        free(self.rows.at)
        free(self.dx.at)
        free(self.px.at)

    def __len__(self):
        return self.n

    cdef int begin(self, int reader, object claims, Py_ssize_t row, Py_ssize_t dx, Py_ssize_t px) except -1:
        cdef Py_ssize_t count
        self.reader = reader
        self.errors = {}
        self.claims = claims if isinstance(claims, (list, tuple)) else list(claims)
        count = len(self.claims)
        if not (
            grow(&self.rows, count * row + 1)
            and grow(&self.dx, (8 * count + 64) * dx)
            and grow(&self.px, (4 * count + 64) * px)
        ):
            raise MemoryError
        memset(self.rows.at, 0, count * row)
        return 0

    cdef int read(self) except -1:
        cdef Py_ssize_t i, count = len(self.claims)
        cdef ClaimFields fields = ClaimFields()
        for i in range(count):
            self.read_one(i, fields, False)
        self.n = count
        return 0

    cdef int read_one(self, Py_ssize_t i, ClaimFields fields, bint taken) except -1:
        """Read claim i. ``taken``: its fields are."""
        cdef Py_ssize_t dx = self.dx.size, px = self.px.size
        try:
            if not taken:
                fields.take(self.claims[i], self.reader)
            self.lay_out(i, fields)
        except CodesetError as error:
            # Codes read before the error was met are forgotten: they would count as the claim's before.
            self.dx.size, self.px.size = dx, px
            self.errors[i] = error
            self.fail(i)
        return 0

    cdef int lay_out(self, Py_ssize_t i, ClaimFields fields) except -1:
        raise NotImplementedError

    cdef void fail(self, Py_ssize_t i) noexcept:
        pass


cdef int read_together(Layout first, Layout second) except -1:
    cdef Py_ssize_t i, count = len(first.claims)
    cdef ClaimFields fields = ClaimFields()
    cdef bint taken
    if first.claims is not second.claims or first.n or second.n:
        raise ValueError("expected two batches of the same claims, none of them read")
    for i in range(count):
        try:
            fields.take(first.claims[i], first.reader | second.reader)
            taken = True
        except CodesetError:
            # Each says by itself what it cannot read.
            taken = False
        first.read_one(i, fields, taken)
        second.read_one(i, fields, taken)
    first.n = second.n = count
    return 0
