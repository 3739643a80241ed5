"""One file per form in which data sets lie on disk: its reader and, where there is one, its writer."""
