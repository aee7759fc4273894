"""verl's entry point: imported by `import verl` in the driver and in every Ray worker.

Loaded twice over, as entry point and through VERL_USE_EXTERNAL_MODULES, because verl hides an entry point that fails
(and can be told to skip entry points), but not a module that does; importing it again changes nothing.
"""

from genrm_verl import hooks

hooks.install()
