# Memory that will be needed soon, asked for while there is something else to do.

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #define codeset_prefetch(address) ((void)(address))
    #else
    #define codeset_prefetch(address) __builtin_prefetch(address)
    #endif
    """
    void prefetch "codeset_prefetch"(const void* address) noexcept nogil
