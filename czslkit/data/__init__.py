"""Datasets, from files on disk to batches for a method.

Descriptions and files of datasets::

    datasets       the registry, and the class that describes a dataset
    published      the built-in datasets with their published counts
    sources        the archives of the built-in datasets
    folders        the folders of datasets on this machine
    layout         the field's folder layout, its paths and records
    pair_lists     the lists of pairs; metadata: the labels of images; listing: both together
    writing        writes a dataset to disk; removal: removes one that was written
    integrity      checks that the files do not contradict each other
    fingerprint    digests of the files
    demo_world     the rendered demo dataset; demo_drawing, demo_finishes: its images

Loaded data, without and with pixels::

    loading            loads a dataset by its name
    splits             the label space, the splits and the candidate pairs of the closed world
    images             opens and decodes one image file
    image_transforms   resizes, crops and normalises images
    augmentation       varies training images at random
    image_check        decodes every image once before training
    image_set          the images of a split; image_reader: in batches, from processes that read
    image_cache        decoded images on disk; feature_cache: features on disk; cache: the folder of both
    batches            batches of pixels or of features for training and evaluation
"""
